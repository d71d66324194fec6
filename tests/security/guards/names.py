"""What guards the service from names: files that a file names."""

from __future__ import annotations

from functools import partial

from tests.security.guards.guard import Cut, Guard, cases, each

OPENED = "test_named_files.py::test_root_does_not_publish_what_a_disk_names_by_a_hard_link"
MAY_NAME = "test_named_files.py::test_what_an_owner_may_name"
VMX = "test_named_files.py::test_a_vmx_that_the_disks_owner_may_not_read"

mandate = partial(Cut, "hyper2kvmd/disk/mandate.py")
vmdk = partial(Cut, "hyper2kvmd/disk/vmdk/source.py")

GUARDS: tuple[Guard, ...] = (
    # ---- files
    *each(
        (
            OPENED,
            "test_named_files.py::test_the_service_user_does_not_publish_its_own_file_for_a_disks_owner",
            "test_named_files.py::test_a_job_of_somebody_who_may_read_both",
            *cases(VMX, "a link"),
        ),
        mandate("            _require_reach(self.namer, handle, path)", "            pass"),
    ),
    *each(
        cases(OPENED, "flat extent", "second extent", "sparse extent", "parent's extent, below root's snapshot"),
        vmdk("at, named = 0, opening.named_by(file)", "at, named = 0, mandate"),
    ),
    *each(cases(OPENED, "parent"), vmdk("opening.named_by(child.file)", "opening.mandate")),
    *each(
        cases(OPENED, "extent that root's snapshot names too"),
        vmdk("            mandate.require(self.files[path].fd, path)\n", ""),
    ),
    *each(
        cases(VMX, "a link"),
        Cut("hyper2kvmd/disk/vmx.py", "_beside(disk, mandate.named_by(file.fd, disk))", "_beside(disk, mandate)"),
    ),
    *each(cases(MAY_NAME, "their own, without any mode"), mandate("uid == owner.uid or ", "")),
    *each(
        cases(MAY_NAME, "readable by all", "root's descriptor", "a chain"),
        mandate("uid == owner.uid or owner.may(READ, handle)", "uid == owner.uid"),
    ),
    *each(
        (*cases(MAY_NAME, "one owner"), *cases(VMX, "their own")),
        mandate("if uid == owner.uid or owner.may(READ, handle):", "if False:"),
    ),
)
