"""What guards the readers of descriptions of machines."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

OVF = "test_ovf.py::test_a_hostile_descriptor_is_refused_soon_in_little_memory"

elements = partial(Cut, "hyper2kvmd/machines/ovf/elements.py")
disks = partial(Cut, "hyper2kvmd/machines/ovf/disks.py")
hrefs = partial(Cut, "hyper2kvmd/machines/ovf/hrefs.py")
quantities = partial(Cut, "hyper2kvmd/machines/ovf/quantities.py")

GUARDS: tuple[Guard, ...] = (
    *each(
        cases(
            OVF,
            "billion laughs",
            "quadratic growth",
            "an external entity",
            "an external parameter entity",
            "an external DTD",
        ),
        elements("_Reader.__init__", "value _doctype", "None"),
    ),
    *each(cases(OVF, "nested collections"), elements("_Reader._start", "if MAX_DEPTH", NEVER)),
    *each(cases(OVF, "elements without end"), elements("_Reader._start", "if MAX_ELEMENTS", NEVER)),
    *each(cases(OVF, "attributes without end"), elements("_Reader._start", "if MAX_ATTRIBUTES", NEVER)),
    *each(cases(OVF, "a comment without end"), elements("_Reader.read", "if MAX_TOKEN", NEVER)),
    *each(cases(OVF, "a text without end"), elements("read_elements", "if MAX_BYTES", NEVER)),
    *each(
        "test_ovf.py::test_a_file_without_end_is_not_read_to_its_end",
        Cut("hyper2kvmd/machines/packaged.py", "read_packaged", "argument MAX_BYTES", "file.size"),
    ),
    *each(cases(OVF, "a number without end"), quantities("WHOLE", "argument", 'r"([0-9]+)"')),
    *each(
        cases(OVF, "a power without end"),
        (
            quantities("PROGRAMMATIC", "argument", r'r"bytes?((?:\*[0-9]+(?:\^[0-9]+)?)*)"'),
            quantities("FACTOR", "argument", r'r"\*([0-9]+)(?:\^([0-9]+))?"'),
        ),
    ),
    *each(
        cases(OVF, "parts without end"),
        Cut("hyper2kvmd/machines/ovf/references.py", "References._parts", "if MAX_PARTS", NEVER),
    ),
    *each(
        cases(OVF, "a parent of itself", "parents in a circle", "a thousand parents"),
        disks("DiskSection._disk", "if children", NEVER),
    ),
    *each(
        cases(OVF, "cards without end", "drives without end"),
        Cut("hyper2kvmd/machines/ovf/devices.py", "_few", "if MAX_OF_A_KIND", NEVER),
    ),
    *each(
        "tests/unit/test_libvirt_xml.py::test_devices_without_end",
        Cut("hyper2kvmd/machines/libvirt_xml.py", "_few", "if DEVICES_MAX", ALWAYS),
    ),
    *each(
        "tests/integration/test_libvirt_xml.py::test_the_guest_of_a_raw_disk_does_not_choose_how_it_is_read",
        Cut("hyper2kvmd/stages/plan.py", "_require_formats", "if format", NEVER),
    ),
    *each(cases(OVF, "a thousand disks"), disks("DiskSection.described", "if DISKS_MAX", NEVER)),
    *each(
        cases(OVF, "a folder above", "a folder above, escaped", "an absolute path", "an address"),
        (hrefs("_fault", "if SCHEME", NEVER), hrefs("_fault", "operand /", NEVER)),
    ),
    *each(cases(OVF, "another line"), hrefs("_fault", "operand isprintable", NEVER)),
    *each(cases(OVF, "a link"), Cut("hyper2kvmd/host/mandate.py", "Mandate.open", "mention O_NOFOLLOW", "0")),
    *each(
        "test_ovf.py::test_root_does_not_publish_a_disk_that_its_ovf_may_not_name",
        Cut("hyper2kvmd/disk/sources/location.py", "mandate_for", "if named_by", NEVER),
    ),
)
