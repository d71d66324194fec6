"""What guards the service from names: a libvirt that a submitter names, and files that a file names."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, GONE, NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

OPENED = "test_named_files.py::test_root_does_not_publish_what_a_disk_names_by_a_hard_link"
MAY_NAME = "test_named_files.py::test_what_an_owner_may_name"
SNAPSHOT = "test_named_files.py::test_a_snapshot_that_the_disks_owner_may_not_read"
VMX = "test_named_files.py::test_a_vmx_that_the_disks_owner_may_not_read"
EXCHANGED = "test_named_files.py::test_a_disk_whose_name_leads_to_another_by_the_time_its_vmx_is_read"
UNLISTED = "test_libvirt_uris.py::test_a_host_that_the_administrator_did_not_list"
SIMILAR = "test_libvirt_uris.py::test_an_address_that_only_looks_like_a_listed_one"
ONLY_OTHERS_KNOW = "test_libvirt_uris.py::test_a_host_that_only_others_know"
OTHER_KEY = "test_libvirt_uris.py::test_a_host_with_another_key"
KNOWN = "test_libvirt_uris.py::test_a_host_that_the_administrator_knows"
LATER = "test_libvirt_uris.py::test_options_that_come_later_are_refused"
VALUES = ("option", "port with an option", "user like an option", "unchecked key")

mandate = partial(Cut, "hyper2kvmd/host/mandate.py")
beside = partial(Cut, "hyper2kvmd/machines/vmx/beside.py")
vmx = partial(Cut, "hyper2kvmd/machines/vmx/reader.py")
location = partial(Cut, "hyper2kvmd/disk/sources/location.py")
vmdk = partial(Cut, "hyper2kvmd/disk/sources/vmdk/source.py")
libvirt = partial(Cut, "hyper2kvmd/targets/libvirt/connection.py")
ssh = partial(Cut, "hyper2kvmd/cli/ssh.py")

GUARDS: tuple[Guard, ...] = (
    # ---- files
    *each(
        (
            OPENED,
            "test_named_files.py::test_the_service_user_does_not_publish_its_own_file_for_a_disks_owner",
            "test_named_files.py::test_a_job_of_somebody_who_may_read_both",
            *cases(VMX, "a link"),
        ),
        mandate("Mandate.require", "call _require_reach", GONE),
    ),
    *each(
        cases(OPENED, "flat extent", "second extent", "sparse extent", "parent's extent, below root's snapshot"),
        vmdk("_layer", "call named_by", "opening.mandate"),
    ),
    *each(cases(OPENED, "parent"), vmdk("_open_parent", "call named_by", "opening.mandate")),
    *each(
        cases(OPENED, "extent that root's snapshot names too"),
        vmdk("Opening.open", "call require", GONE),
    ),
    *each((*cases(VMX, "a link"), EXCHANGED), beside("DisksWithVmx.read", "call named_by", "sources.mandate")),
    *each(EXCHANGED, beside("DisksWithVmx.read", "argument fd", "os.open(file.path, os.O_RDONLY)")),
    *each(
        cases(SNAPSHOT, "a link"),
        Cut("hyper2kvmd/disk/sources/snapshots.py", "_read_beside", "call named_by", "mandate"),
    ),
    *each(cases(MAY_NAME, "their own, without any mode"), mandate("_require_reach", "operand uid", NEVER)),
    *each(
        cases(MAY_NAME, "readable by all", "root's descriptor", "a chain"),
        mandate("_require_reach", "operand may", NEVER),
    ),
    *each(
        (*cases(MAY_NAME, "one owner"), *cases(VMX, "their own")),
        mandate("_require_reach", "if may", NEVER),
    ),
    # ---- disks of a .vmx
    *each(
        "test_vmx_files.py::test_root_does_not_publish_a_disk_that_its_vmx_may_not_name",
        (vmx("Vmx.read", "call named_by_owner", "sources.mandate"), location("mandate_for", "if named_by", NEVER)),
    ),
    *each(
        "test_vmx_files.py::test_a_vmsd_that_its_vmx_may_not_name",
        vmx("Vmx.read", "call named_by_owner", "sources.mandate"),
    ),
    *each(
        "test_vmx_files.py::test_a_later_attempt_judges_the_disk_by_its_namer_as_well",
        location("mandate_for", "if named_by", NEVER),
    ),
    *each(
        "test_vmx_files.py::test_a_submitter_does_not_read_anothers_vmx",
        vmx("Vmx.read", "argument mandate", "type(sources.mandate)()"),
    ),
    *each(
        "test_vmx_files.py::test_a_submitter_does_not_learn_which_files_there_are",
        mandate("Mandate.open", "if closed", NEVER),
    ),
    *each(
        "test_vmx_files.py::test_no_disk_is_outside_of_the_allowed_directories",
        (
            mandate("Mandate.open", "call require_below", GONE),
            mandate("Mandate.require", "call require_below", GONE),
        ),
    ),
    *each(
        "test_vmx_files.py::test_a_path_does_not_lead_out_of_its_datastore",
        Cut("hyper2kvmd/machines/vmx/files.py", "NamedFiles.find", "call normpath", "$1"),
    ),
    *each(
        cases("test_vmx_files.py::test_a_disk_that_is_no_file", "pipe", "folder", "device"),
        Cut("hyper2kvmd/disk/files.py", "open_file", "if S_ISREG", NEVER),
    ),
    *each(
        cases("test_vmx_files.py::test_a_disk_that_is_no_file", "link"),
        mandate("Mandate.open", "mention O_NOFOLLOW", "0"),
    ),
    *each(
        cases("test_vmx_files.py::test_a_disk_that_the_owner_of_the_vmx_may_read", "their own"),
        mandate("_require_reach", "if may", NEVER),
    ),
    *each(
        cases("test_vmx_files.py::test_a_disk_that_the_owner_of_the_vmx_may_read", "readable by all", "named by root"),
        mandate("_require_reach", "operand may", NEVER),
    ),
    # ---- which libvirt
    *each(
        (
            UNLISTED,
            SIMILAR,
            "test_libvirt_uris.py::test_a_job_that_is_taken_up_after_the_list_was_shortened",
            "test_libvirt_uris.py::test_a_submitter_without_a_list",
        ),
        libvirt("Libvirt.of", "if LOCAL_URIS", NEVER),
    ),
    *each(
        "test_libvirt_uris.py::test_a_submitter_without_a_list",
        libvirt("Libvirt.of", "operand submitter", NEVER),
    ),
    *each(
        "test_libvirt_uris.py::test_a_one_shot_run_has_the_persons_own_configuration",
        libvirt("Libvirt.of", "value submitter", ALWAYS),
    ),
    # ---- the way to another host
    *each(
        (ONLY_OTHERS_KNOW, OTHER_KEY, KNOWN),
        libvirt("Libvirt._address", "return _ssh", "self.uri"),
        (ssh("command", "item -F", GONE), ssh("command", "item /dev/null", GONE)),
    ),
    *each(
        (ONLY_OTHERS_KNOW, OTHER_KEY), ssh("OPTIONS", "item StrictHostKeyChecking=yes", '"StrictHostKeyChecking=no"')
    ),
    *each((ONLY_OTHERS_KNOW, KNOWN), ssh("OPTIONS", "item KNOWN_HOSTS", GONE)),
    *each(ONLY_OTHERS_KNOW, ssh("OPTIONS", "item GlobalKnownHostsFile=/dev/null", GONE)),
    *each(
        cases(LATER, "configuration", "configuration, joined", "jump", "agent", "PKCS #11", "key", "grouped"),
        ssh("command", "then ACCEPTED", "continue"),
    ),
    *each(cases(LATER, *VALUES), ssh("command", "then fullmatch", "pass")),
    *each(
        "test_libvirt_uris.py::test_a_host_that_could_be_an_option",
        ssh("command", "if startswith", NEVER),
    ),
)
