"""What guards the files of others from those who own the folders that a job works in, or lie above them."""

from __future__ import annotations

from functools import partial

from tests.security.guards.guard import Cut, Guard, cases, each

SWAPPED = "test_places.py::test_a_place_that_somebody_else_can_swap"

placing = partial(Cut, "hyper2kvmd/host/placing.py")
destination = partial(Cut, "hyper2kvmd/host/destination.py")
publish = partial(Cut, "hyper2kvmd/stages/publish.py")
definition = partial(Cut, "hyper2kvmd/targets/libvirt/definition.py")
workspace = partial(Cut, "hyper2kvmd/host/workspace.py")
person = partial(Cut, "hyper2kvmd/host/person.py")

NEW = placing("os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW |", "os.O_RDWR | os.O_CREAT |")
OWN = definition('"define", "--validate", str(own)', '"define", "--validate", str(xml)')

GUARDS: tuple[Guard, ...] = (
    # ---- the output directory
    *each(
        "test_places.py::test_what_lies_under_the_names_of_drafts",
        placing(
            "        self._remove(name for name in names if name.startswith",
            "        (name for name in names if name.startswith",
        ),
    ),
    *each("test_places.py::test_a_draft_that_is_planted_while_a_job_publishes", NEW),
    *each(
        "test_places.py::test_a_draft_that_is_planted_before_a_copy_onto_another_file_system",
        (NEW, publish("        if error.errno != errno.EXDEV:\n            raise", "        pass")),
    ),
    *each(
        "test_places.py::test_a_draft_that_is_swapped_before_it_gets_its_name",
        placing(
            'os.link(f"/proc/self/fd/{handle}", name, dst_dir_fd=self._directory, follow_symlinks=True)',
            "os.link(self._draft(name), name, src_dir_fd=self._directory, dst_dir_fd=self._directory)",
        ),
    ),
    *each(
        "test_places.py::test_an_output_that_is_swapped_for_a_link_after_the_plan",
        destination("    if _real(handle).joinpath(*missing) != order.output_dir:", "    if False:"),
    ),
    # ---- libvirt
    *each("test_places.py::test_libvirt_does_not_get_a_domain_from_its_folders_owner", OWN),
    *each(
        "test_places.py::test_libvirt_keeps_no_domain_with_other_disks",
        (OWN, definition('            libvirt.virsh("undefine", identity)', "            pass")),
    ),
    # ---- the conversion directory
    *each(
        (
            *cases(SWAPPED, "theirs above", "theirs above, sticky", "theirs", "root's"),
            "test_places.py::test_a_sticky_folder_keeps_what_is_ours",
        ),
        workspace("facts.st_uid in owners and ", ""),
    ),
    *each(cases(SWAPPED, "root's"), workspace("path, path, (os.geteuid(),)", "path, path, (0, os.geteuid())")),
    *each(
        cases(SWAPPED, "open above", "open above to a group", "open", "open, sticky", "open to a group"),
        workspace("not strangers_may_write(folder)", "True"),
    ),
    *each(cases(SWAPPED, "open above to an empty group"), person("entry.gr_name != self.name or ", "")),
    *each("test_places.py::test_what_an_acl_lets_somebody_swap", person(" or bool(acl.entries(folder))", "")),
    *each(
        "test_places.py::test_a_group_with_somebody_else_in_it", person(" or not set(entry.gr_mem) <= {self.name}", "")
    ),
    *each(
        "test_places.py::test_a_place_that_is_swapped_for_a_link_after_it_was_looked_up",
        workspace("if not stat.S_ISDIR(facts.st_mode):", "if False:"),
    ),
)
