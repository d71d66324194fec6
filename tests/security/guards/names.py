"""What guards the service from names: a libvirt that a submitter names, and files that a file names."""

from __future__ import annotations

from functools import partial

from tests.security.guards.guard import Cut, Guard, cases, each

OPENED = "test_named_files.py::test_root_does_not_publish_what_a_disk_names_by_a_hard_link"
MAY_NAME = "test_named_files.py::test_what_an_owner_may_name"
VMX = "test_named_files.py::test_a_vmx_that_the_disks_owner_may_not_read"
UNLISTED = "test_libvirt_uris.py::test_a_host_that_the_administrator_did_not_list"
SIMILAR = "test_libvirt_uris.py::test_an_address_that_only_looks_like_a_listed_one"
ONLY_OTHERS_KNOW = "test_libvirt_uris.py::test_a_host_that_only_others_know"
OTHER_KEY = "test_libvirt_uris.py::test_a_host_with_another_key"
KNOWN = "test_libvirt_uris.py::test_a_host_that_the_administrator_knows"
LATER = "test_libvirt_uris.py::test_options_that_come_later_are_refused"
VALUES = ("option", "port with an option", "user like an option", "unchecked key")

mandate = partial(Cut, "hyper2kvmd/host/mandate.py")
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
        mandate("            _require_reach(namer, handle, path)", "            pass"),
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
        Cut("hyper2kvmd/machines/vmx.py", "_beside(disk, mandate.named_by(file.fd, disk))", "_beside(disk, mandate)"),
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
    # ---- which libvirt
    *each(
        (
            UNLISTED,
            SIMILAR,
            "test_libvirt_uris.py::test_a_job_that_is_taken_up_after_the_list_was_shortened",
            "test_libvirt_uris.py::test_a_submitter_without_a_list",
        ),
        libvirt("if restricted and uri not in", "if False and uri not in"),
    ),
    *each(
        cases(UNLISTED, "no import"),
        Cut("hyper2kvmd/stages/plan.py", "    Libvirt.of(order)  # refused before anything is started or made\n", ""),
    ),
    *each(
        "test_libvirt_uris.py::test_a_submitter_without_a_list",
        libvirt("order.submitter is not None or listed", "listed"),
    ),
    *each(
        "test_libvirt_uris.py::test_a_one_shot_run_has_the_persons_own_configuration",
        libvirt("order.submitter is not None or listed is not None", "True"),
    ),
    # ---- the way to another host
    *each(
        (ONLY_OTHERS_KNOW, OTHER_KEY, KNOWN),
        libvirt("?command={quote(str(_ssh()))}&no_tty=1", ""),
        ssh('[SSH, "-F", "/dev/null", ', "[SSH, "),
    ),
    *each((ONLY_OTHERS_KNOW, OTHER_KEY), ssh('    "StrictHostKeyChecking=yes",', '    "StrictHostKeyChecking=no",')),
    *each((ONLY_OTHERS_KNOW, KNOWN), ssh('    f"UserKnownHostsFile={KNOWN_HOSTS}",\n', "")),
    *each(ONLY_OTHERS_KNOW, ssh('    "GlobalKnownHostsFile=/dev/null",\n', "")),
    *each(
        cases(LATER, "configuration", "configuration, joined", "jump", "agent", "PKCS #11", "key", "grouped"),
        ssh("            raise Refused(word)", "            continue"),
    ),
    *each(cases(LATER, *VALUES), ssh('raise Refused(f"{word} {value}")', "pass")),
    *each(
        "test_libvirt_uris.py::test_a_host_that_could_be_an_option",
        ssh('if next(rest, "-").startswith("-"):', "if False:"),
    ),
)
