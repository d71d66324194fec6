"""The disks of an OVF descriptor: their files, sizes, places and order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed, Unsafe
from hyper2kvmd.machines.ovf.described import DescribedDisk, assemble
from hyper2kvmd.machines.ovf.hrefs import file_names, files_of
from hyper2kvmd.model.disks import EmptyDisk, LocalFile
from hyper2kvmd.model.machine import DiskAddress
from tests.support.ovf_texts import (
    DISK,
    FILE,
    VERSIONS,
    Item,
    System,
    Version,
    attributes,
    controller,
    cpu,
    disk,
    envelope,
    memory,
    read,
    section,
    two_disks,
)

GIB = 1 << 30


def capacity_of(**about: str) -> int | None:
    """The capacity of a disk with a file, and these attributes instead of the usual ones."""
    (found,) = read(envelope(disks=[{"diskId": "d1", "fileRef": "f1", **about}])).disks
    return found.capacity


def code_of(text: bytes) -> str:
    with pytest.raises((MigrationFailed, Unsafe)) as refused:
        read(text)
    return refused.value.code


# ---------------------------------------------------------------- capacity

MIB = 1 << 20
UNITS = {
    "byte": 1,
    "bytes": 1,
    "Bytes": 1,
    "byte * 2^10": 1 << 10,
    "byte * 2^20": MIB,
    "byte*2^20": MIB,
    "byte * 2 ^ 20": MIB,
    " byte  *  2^20 ": MIB,
    "byte * 2^30": GIB,
    "byte*2^30": GIB,
    "BYTE * 2^30": GIB,
    "byte * 2^40": 1 << 40,
    "byte * 1024": 1 << 10,
    "byte * 1024 * 1024": MIB,
    "byte * 1024^2": MIB,
    "byte * 10^3": 1000,
    "byte * 10^9": 10**9,
    "byte * 1000": 1000,
    "KiloBytes": 1 << 10,
    "kilobyte": 1 << 10,
    "KB": 1 << 10,
    "KiB": 1 << 10,
    "MegaBytes": MIB,
    "megabytes": MIB,
    "Megabyte": MIB,
    "MB": MIB,
    "MiB": MIB,
    "Mebibyte": MIB,
    "GigaBytes": GIB,
    "gigabyte": GIB,
    "GB": GIB,
    "GiB": GIB,
    "TeraBytes": 1 << 40,
    "TB": 1 << 40,
    "TiB": 1 << 40,
    "": 1,
}


@pytest.mark.parametrize("unit", UNITS)
def test_a_capacity_in_each_unit(unit: str) -> None:
    assert capacity_of(capacity="7", capacityAllocationUnits=unit) == 7 * UNITS[unit]


def test_a_capacity_without_a_unit_is_in_bytes() -> None:
    assert capacity_of(capacity="8589934592") == 8 * GIB


@pytest.mark.parametrize("text", ["5", " 5 ", "5.0", "05"])
def test_spellings_of_a_number(text: str) -> None:
    assert capacity_of(capacity=text, capacityAllocationUnits="byte * 2^30") == 5 * GIB


UNCLEAR = ("", "0", "-1", "1e9", "0x10", "ten", "1 GB", "5.5", "\u0665", "1" * 19, "${no.such}")
UNKNOWN_UNITS = ("furlong", "byte * 2^", "byte ^ 20", "2^20", "byte * 0", "byte * 2^99", "bit * 2^30", "byte * 2^-1")


@pytest.mark.parametrize("capacity", UNCLEAR)
def test_an_unclear_capacity_of_a_disk_with_a_file_is_left_to_its_header(capacity: str) -> None:
    assert capacity_of(capacity=capacity, capacityAllocationUnits="byte * 2^30") is None


@pytest.mark.parametrize("unit", UNKNOWN_UNITS)
def test_an_unknown_unit_of_a_disk_with_a_file(unit: str) -> None:
    assert capacity_of(capacity="16", capacityAllocationUnits=unit) is None


@pytest.mark.parametrize("capacity", UNCLEAR)
def test_an_unclear_capacity_of_an_empty_disk_is_refused(capacity: str) -> None:
    assert code_of(envelope(disks=[{"diskId": "d1", "capacity": capacity}])) == "ovf-disk-unclear"


@pytest.mark.parametrize("unit", UNKNOWN_UNITS)
def test_an_unknown_unit_of_an_empty_disk_is_refused(unit: str) -> None:
    text = envelope(disks=[{"diskId": "d1", "capacity": "16", "capacityAllocationUnits": unit}])
    with pytest.raises(MigrationFailed, match=re.escape(repr(unit))):
        read(text)


def test_an_empty_disk_that_is_too_large_is_refused() -> None:
    text = envelope(disks=[{"diskId": "d1", "capacity": "65", "capacityAllocationUnits": "byte * 2^40"}])
    assert code_of(text) == "ovf-disk-unclear"


@pytest.mark.parametrize("version", VERSIONS)
def test_an_empty_disk(version: Version) -> None:
    text = envelope(
        version=version, disks=[{"diskId": "d1", "capacity": "2", "capacityAllocationUnits": "byte * 2^30"}]
    )
    (found,) = read(text).disks
    assert (found.hrefs, found.capacity) == ((), 2 * GIB)


def test_an_empty_disk_has_whole_sectors() -> None:
    (found,) = read(envelope(disks=[{"diskId": "d1", "capacity": "1000"}])).disks
    assert found.capacity == 1024


def test_an_empty_file_reference_is_none() -> None:
    (found,) = read(envelope(disks=[{"diskId": "d1", "fileRef": "", "capacity": "1024"}])).disks
    assert found.hrefs == ()


# ---------------------------------------------------------------- properties


def product(*properties: str, about: str = "", version: Version = "1") -> str:
    made = section(version, "ProductSection", "".join(properties))
    return made.replace("<ProductSection>", f"<ProductSection{about}>")


def of_property(reference: str, sections: str, where: str = "system") -> int | None:
    system = System(sections=sections if where == "system" else "")
    disks = [{"diskId": "d1", "capacity": reference, "capacityAllocationUnits": "byte * 2^30"}]
    before = sections if where == "envelope" else ""
    return read(envelope(system, disks=disks, sections=before)).disks[0].capacity


ONLY_FOR = (("small", "10"), ("large huge", "90"))
SIZE = '<Property ovf:key="size" ovf:type="uint16" ovf:value="20"/>'


@pytest.mark.parametrize(
    ("reference", "sections"),
    [
        ("${size}", product(SIZE)),
        (" ${size} ", product(SIZE)),
        ("${ size }", product(SIZE)),
        ("${org.vendor.size}", product(SIZE, about=' ovf:class="org.vendor"')),
        ("${size.2}", product(SIZE, about=' ovf:instance="2"')),
        ("${org.vendor.size.2}", product(SIZE, about=' ovf:class="org.vendor" ovf:instance="2"')),
        ("${disk.size}", product('<Property ovf:key="disk.size" ovf:value="20"/>')),
        ("${size}", product("<Category>disks</Category>", SIZE)),
        ("${size}", product(SIZE, about=' ovf:class="a"') + product(SIZE)),
    ],
)
def test_a_capacity_from_a_property(reference: str, sections: str) -> None:
    assert of_property(reference, sections) == 20 * GIB


def test_a_property_of_the_envelope() -> None:
    assert of_property("${size}", product(SIZE), where="envelope") == 20 * GIB


def test_the_inner_property_wins() -> None:
    other = product(SIZE.replace("20", "40"))
    text = envelope(
        System(sections=product(SIZE)),
        disks=[{"diskId": "d1", "capacity": "${size}"}],
        sections=other,
    )
    assert read(text).disks[0].capacity == 512


@pytest.mark.parametrize("reference", ["${other}", "${org.size}", "$size", "{size}", "${size} GB", "${${size}}", "${}"])
def test_a_reference_to_nothing_is_refused(reference: str) -> None:
    with pytest.raises(MigrationFailed) as refused:
        of_property(reference, product(SIZE))
    assert refused.value.code == "ovf-disk-unclear"


def test_a_property_without_a_value_is_refused() -> None:
    with pytest.raises(MigrationFailed):
        of_property("${size}", product('<Property ovf:key="size"/>'))


@pytest.mark.parametrize(("configuration", "size"), [("small", 10), ("large", 90), (None, 10), ("other", 20)])
def test_a_property_of_a_configuration(configuration: str | None, size: int) -> None:
    options = section(
        "1",
        "DeploymentOptionSection",
        "".join(f'<Configuration ovf:id="{one}"/>' for one in ("small", "large", "other")),
    )
    values = '<Value ovf:configuration="small" ovf:value="10"/><Value ovf:configuration="large" ovf:value="90"/>'
    sections = product(SIZE.replace("/>", f">{values}</Property>"))
    disks = [{"diskId": "d1", "capacity": "${size}", "capacityAllocationUnits": "byte * 2^30"}]
    text = envelope(System(sections=sections), disks=disks, sections=options)
    assert read(text, configuration).disks[0].capacity == size * GIB


@pytest.mark.parametrize(("configuration", "size"), [("small", 10), ("large", 90)])
def test_a_property_that_is_only_for_a_configuration(configuration: str, size: int) -> None:
    names = "".join(f'<Configuration ovf:id="{one}"/>' for one in ("small", "large", "other"))
    only = [SIZE.replace("20", value).replace("/>", f' ovf:configuration="{one}"/>') for one, value in ONLY_FOR]
    disks = [{"diskId": "d1", "capacity": "${size}", "capacityAllocationUnits": "byte * 2^30"}]
    options = section("1", "DeploymentOptionSection", names)
    text = envelope(System(sections=product(*only)), disks=disks, sections=options)
    assert read(text, configuration).disks[0].capacity == size * GIB
    with pytest.raises(MigrationFailed, match="d1"):
        read(text, "other")


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "resource", ["ovf:/disk/d1", "/disk/d1", "ovf://disk/d1", "ovf:disk/d1", "disk/d1", "d1", " ovf:/disk/d1 "]
)
def test_spellings_of_a_host_resource(version: Version, resource: str) -> None:
    text = envelope(System((cpu(), memory(), controller("3"), disk("4", resource))), version=version)
    assert [(one.id, one.hrefs) for one in read(text).disks] == [("d1", ("web01-disk1.vmdk",))]


@pytest.mark.parametrize("resource", ["ovf:/file/f1", "/file/f1", "ovf://file/f1", "ovf:file/f1", "file/f1"])
def test_a_disk_by_its_file(resource: str) -> None:
    (found,) = read(envelope(System((cpu(), memory(), controller("3"), disk("4", resource))))).disks
    assert (found.hrefs, found.capacity) == (("web01-disk1.vmdk",), None)


@pytest.mark.parametrize(
    "resource", ["ovf:/disk/d9", "ovf:/disk/", "/disks/d1", "disk:d1", "http://host/d1", "D1", "ovf:/file/d1"]
)
def test_a_host_resource_that_leads_nowhere_is_refused(resource: str) -> None:
    assert code_of(envelope(System((cpu(), memory(), controller("3"), disk("4", resource))))) == "ovf-disk-unclear"


def test_a_disk_without_a_host_resource_is_refused_with_the_disks_that_there_are() -> None:
    with pytest.raises(MigrationFailed, match="disk 4") as refused:
        read(envelope(System((cpu(), memory(), controller("3"), disk("4", None)))))
    assert refused.value.code == "ovf-disk-unclear" and "d1" in refused.value.hint


def test_several_host_resources_are_refused() -> None:
    fields = {"ResourceType": "17", "InstanceID": "4", "HostResource": ["ovf:/disk/d1", "ovf:/disk/d2"]}
    assert code_of(two_disks(controller("3"), Item(fields))) == "ovf-value-unclear"


def test_a_host_resource_that_is_given_twice_is_one() -> None:
    fields = {"ResourceType": "17", "InstanceID": "4", "HostResource": ["ovf:/disk/d1", "ovf:/disk/d1"]}
    assert len(read(two_disks(controller("3"), Item(fields))).disks) == 1


def test_files_are_found_by_their_identifier_not_by_their_order() -> None:
    files = [{"id_": "b", "href": "second.vmdk"}, {"id_": "iso", "href": "cd.iso"}, {"id_": "a", "href": "first.vmdk"}]
    disks = [{"diskId": "d2", "fileRef": "b", "capacity": "1"}, {"diskId": "d1", "fileRef": "a", "capacity": "1"}]
    system = System((cpu(), memory(), controller("3"), disk("4"), disk("5", "ovf:/disk/d2", unit="1")))
    found = read(envelope(system, files=files, disks=disks)).disks
    assert [one.hrefs for one in found] == [("first.vmdk",), ("second.vmdk",)]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([{"id_": "f2", "href": "a.vmdk"}], "no file has this identifier"),
        ([], "there are: none"),
        ([FILE, {**FILE, "href": "other.vmdk"}], "2 files have"),
        ([{"id_": "f1"}], "no ovf:href"),
        ([{"id_": "f1", "href": " "}], "no ovf:href"),
    ],
)
def test_a_file_reference_that_leads_nowhere_is_refused(files: list[dict[str, str]], said: str) -> None:
    with pytest.raises(MigrationFailed, match=re.escape(said)) as refused:
        read(envelope(files=files))
    assert refused.value.code == "ovf-disk-unclear"


def test_an_identifier_of_two_disks_is_refused() -> None:
    assert code_of(envelope(disks=[DISK, {**DISK, "fileRef": "f2"}])) == "ovf-disk-unclear"


def test_a_disk_of_two_items_is_refused() -> None:
    system = System((cpu(), memory(), controller("3"), disk("4"), disk("5", "/disk/d1", unit="1")))
    with pytest.raises(MigrationFailed, match=r"disk 4.*disk 5"):
        read(envelope(system))


def test_a_machine_without_a_disk_is_refused() -> None:
    assert code_of(envelope(System((cpu(), memory())))) == "ovf-disk-unclear"


def test_a_machine_with_too_many_disks_is_refused() -> None:
    items = [disk(str(10 + number), f"ovf:/disk/d{number}", unit=str(number)) for number in range(1, 28)]
    assert code_of(two_disks(controller("3"), *items, files=27)) == "disks-too-many"


@pytest.mark.parametrize(
    ("compression", "packing"),
    [("", "none"), ("identity", "none"), ("gzip", "gzip"), ("GZIP", "gzip"), ("bzip2", "bzip2")],
)
def test_compressions(compression: str, packing: str) -> None:
    (found,) = read(envelope(files=[{**FILE, "compression": compression}])).disks
    assert found.packing == packing


@pytest.mark.parametrize("compression", ["xz", "zstd", "deflate", "lzma", "none"])
def test_another_compression_is_refused(compression: str) -> None:
    assert code_of(envelope(files=[{**FILE, "compression": compression}])) == "ovf-disk-unsupported"


PARTS = {"id_": "f1", "href": "d.vmdk", "chunkSize": "7516192768"}


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        ("7516192769", ["d.vmdk.000000000", "d.vmdk.000000001"]),
        ("15032385536", ["d.vmdk.000000000", "d.vmdk.000000001"]),
        ("15032385537", ["d.vmdk.000000000", "d.vmdk.000000001", "d.vmdk.000000002"]),
    ],
)
def test_a_disk_in_parts(size: str, parts: list[str]) -> None:
    (found,) = read(envelope(files=[{**PARTS, "size": size}])).disks
    assert list(found.hrefs) == parts and found.whole is None


@pytest.mark.parametrize("size", ["1", "7516192768"])
@pytest.mark.parametrize(
    ("there", "used"),
    [
        ({"d.vmdk.000000000"}, "d.vmdk.000000000"),
        ({"d.vmdk"}, "d.vmdk"),
        ({"d.vmdk", "d.vmdk.000000000"}, "d.vmdk.000000000"),
    ],
)
def test_a_disk_in_one_part_with_and_without_a_number(size: str, there: set[str], used: str) -> None:
    (found,) = read(envelope(files=[{**PARTS, "size": size}])).disks
    assert files_of(found, there.__contains__, "x.ovf") == (used,)


@pytest.mark.parametrize(
    ("about", "code"),
    [
        ({}, "ovf-disk-unclear"),
        ({"size": "0"}, "ovf-disk-unclear"),
        ({"size": "many"}, "ovf-disk-unclear"),
        ({"size": "1", "chunkSize": "0"}, "ovf-disk-unclear"),
        ({"size": "1", "chunkSize": ""}, "ovf-disk-unclear"),
        ({"size": "1000000", "chunkSize": "1"}, "ovf-disk-unsupported"),
    ],
)
def test_a_number_of_parts_that_cannot_be_told_is_refused(about: dict[str, str], code: str) -> None:
    assert code_of(envelope(files=[{**PARTS, **about}])) == code


# ---------------------------------------------------------------- references


@pytest.mark.parametrize(
    ("href", "names"),
    [
        ("disk.vmdk", ("disk.vmdk",)),
        ("./disk.vmdk", ("disk.vmdk",)),
        ("my disk.vmdk", ("my disk.vmdk",)),
        ("my%20disk.vmdk", ("my disk.vmdk", "my%20disk.vmdk")),
        ("a%24b.vmdk", ("a$b.vmdk", "a%24b.vmdk")),
        ("%E7%A3%81%E7%9B%98.vmdk", ("磁盘.vmdk", "%E7%A3%81%E7%9B%98.vmdk")),
        ("磁盘.vmdk", ("磁盘.vmdk",)),
        ("100%.vmdk", ("100%.vmdk",)),
        ("%ff.vmdk", ("%ff.vmdk",)),
        ("a+b.vmdk", ("a+b.vmdk",)),
        ("a:b.vmdk", ("a:b.vmdk",)),
        ("..disk.vmdk", ("..disk.vmdk",)),
    ],
)
def test_the_names_that_a_reference_can_mean(href: str, names: tuple[str, ...]) -> None:
    assert file_names(href, "x.ovf") == names


@pytest.mark.parametrize(
    "href",
    [
        "../disk.vmdk", "..", ".", "./", "/etc/shadow", "a/b.vmdk", "%2e%2e%2fdisk.vmdk", "%2Fetc%2Fshadow",
        "a\\b.vmdk", "..%5Cdisk.vmdk", "http://host/disk.vmdk", "https://host/d", "file:///etc/shadow", "HTTP://host/d",
        "nbd://host", "a%00.vmdk", "a\n.vmdk", "a%0a.vmdk", "%e2%80%ae.vmdk", "x" * 256, "./../d.vmdk",
    ],
)  # fmt: skip
def test_a_reference_that_leads_out_is_refused(href: str) -> None:
    with pytest.raises(Unsafe) as refused:
        file_names(href, "x.ovf")
    assert refused.value.code == "ovf-href-unsafe" and refused.value.message.isprintable()


A_DISK = DescribedDisk(id="d1", hrefs=("a%24b.vmdk",))


@pytest.mark.parametrize(
    ("there", "used"), [({"a$b.vmdk"}, "a$b.vmdk"), ({"a%24b.vmdk"}, "a%24b.vmdk"), (set(), "a$b.vmdk")]
)
def test_the_file_that_exists_is_meant(there: set[str], used: str) -> None:
    assert files_of(A_DISK, there.__contains__, "x.ovf") == (used,)


def test_a_reference_that_means_two_files_is_refused() -> None:
    with pytest.raises(MigrationFailed) as refused:
        files_of(A_DISK, {"a$b.vmdk", "a%24b.vmdk"}.__contains__, "x.ovf")
    assert refused.value.code == "ovf-disk-unclear"


# ---------------------------------------------------------------- parents


def chain(*parents: str, last: str = "") -> bytes:
    """Disks d1, d2, ... of which each has the next one as its parent."""
    count = len(parents) + 1
    disks = [
        {"diskId": f"d{n}", "fileRef": f"f{n}", "capacity": "1024", **({"parentRef": parent} if parent else {})}
        for n, parent in enumerate((*parents, last), start=1)
    ]
    files = [{"id_": f"f{n}", "href": f"disk{n}.vmdk"} for n in range(1, count + 1)]
    return envelope(files=files, disks=disks)


def test_a_chain_of_parents() -> None:
    (found,) = read(chain("d2", "d3")).disks
    assert found.parent and found.parent.parent
    assert (found.parent.hrefs, found.parent.parent.hrefs) == (("disk2.vmdk",), ("disk3.vmdk",))
    assert found.parent.parent.parent is None


@pytest.mark.parametrize("text", [chain(last="d1"), chain("d2", last="d1"), chain("d2", last="d9")])
def test_parents_without_an_end_are_refused(text: bytes) -> None:
    assert code_of(text) == "ovf-disk-unclear"


def test_a_chain_that_is_too_long_is_refused() -> None:
    assert code_of(chain(*(f"d{number}" for number in range(2, 40)))) == "ovf-disk-unclear"


def test_an_empty_parent_is_none() -> None:
    assert read(chain(last="")).disks[0].parent is None


def test_a_delta_without_a_file_is_refused() -> None:
    disks = [{"diskId": "d1", "capacity": "1024", "parentRef": "d2"}, {"diskId": "d2", "capacity": "1024"}]
    assert code_of(envelope(disks=disks)) == "ovf-disk-unclear"


def test_parents_are_in_use() -> None:
    assert not read(chain("d2", "d3")).machine.concerns


def test_a_disk_that_no_machine_has_is_a_concern() -> None:
    text = two_disks(controller("3"), disk("4"))
    (concern,) = read(text).machine.concerns
    assert concern.code == "disk-unused" and "d2" in concern.message


# ---------------------------------------------------------------- the machine


def test_the_machine_has_the_disks_that_are_found() -> None:
    items = [controller("3"), disk("4", "ovf:/disk/d2", unit="1"), disk("5", "ovf:/disk/d1", unit="0")]
    text = two_disks(*items).replace(b'ovf:diskId="d2" ovf:fileRef="f2"', b'ovf:diskId="d2"')
    described = read(text)
    machine = assemble(described, lambda one: LocalFile(path=Path("/exports", one.hrefs[0])))
    assert [one.at for one in machine.disks] == [
        LocalFile(path=Path("/exports/disk1.vmdk")),
        EmptyDisk(number=2, size=2 * GIB),
    ]
    assert [one.capacity for one in machine.disks] == [GIB, 2 * GIB]
    assert machine.disks[0].address == DiskAddress(bus="scsi", controller=0, unit=0)


def test_each_system_has_its_own_disks() -> None:
    other = System((cpu(), memory(), controller("3"), disk("4", "ovf:/disk/d2")), id="db01")
    files = [FILE, {"id_": "f2", "href": "db01.vmdk"}]
    text = envelope(System(), other, files=files, disks=[DISK, {"diskId": "d2", "fileRef": "f2"}])
    assert [one.hrefs for one in read(text, system="db01").disks] == [("db01.vmdk",)]
    assert not read(text, system="db01").machine.concerns


def test_attributes_without_a_prefix_count() -> None:
    text = envelope().replace(attributes("1", diskId="d1").encode(), b' diskId="d1"')
    assert read(text).disks[0].id == "d1"
