"""What guards the files of others from those who own the folders that a job works in, or lie above them."""

from __future__ import annotations

from functools import partial

from tests.security.guards.guard import Cut, Guard, cases, each

SWAPPED = "test_places.py::test_a_place_that_somebody_else_can_swap"

ON_THE_WAY = "test_places.py::test_a_link_on_the_way_is_its_owners_choice"
CHOSEN = "test_gc.py::test_a_conversion_directory_of_somebody_elses_choice"

placing = partial(Cut, "hyper2kvmd/host/placing.py")
destination = partial(Cut, "hyper2kvmd/host/destination.py")
publish = partial(Cut, "hyper2kvmd/stages/publish.py")
definition = partial(Cut, "hyper2kvmd/targets/libvirt/definition.py")
workspace = partial(Cut, "hyper2kvmd/host/workspace.py")
person = partial(Cut, "hyper2kvmd/host/person.py")

NEW = placing("os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW |", "os.O_RDWR | os.O_CREAT |")
OWN = definition('"define", "--validate", str(own)', '"define", "--validate", str(xml)')
PURPOSE = workspace('if note.read_text(encoding="utf-8") == purpose:', 'if note.read_text(encoding="utf-8"):')

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
        destination("    if name_of(handle).joinpath(*missing) != order.output_dir:", "    if False:"),
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
        workspace("not strangers_may_write(folder, Person.of(owners[-1]))", "True"),
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
    # ---- what `h2kvmctl gc` removes
    *each(
        (
            *cases(CHOSEN, "link", "link above", "link that they can replace", "link of the service's"),
            *cases(ON_THE_WAY, "nobody-code0"),
        ),
        workspace("                _require_own_link(path, real, links)", "                pass"),
    ),
    *each(
        cases(CHOSEN, "link that they can replace"),
        workspace("for folder in reversed(link.parents):", "for folder in ():"),
    ),
    *each(cases(CHOSEN, "link", "link above"), workspace("maker.uid not in owners", "False")),
    *each(
        cases(CHOSEN, "directory"),
        workspace("_require_safe(path, folder, (rightful,))", "pass"),
    ),
    *each(
        cases(CHOSEN, "directory above"),
        workspace("_require_safe(path, folder, (0, rightful), sticky=stat.S_ISVTX)", "pass"),
    ),
    *each(
        (
            "test_gc.py::test_a_conversion_directory_behind_a_link_of_roots",
            *cases(ON_THE_WAY, "hyper2kvm-code1", "root-code2"),
        ),
        workspace("owners = (0, os.geteuid())", "owners = (os.geteuid() + 1,)"),
    ),
    *each(
        "test_gc.py::test_a_directory_that_is_swapped_before_it_is_opened",
        workspace("if name_of(handle) != real:", "if False:"),
    ),
    *each(
        "test_gc.py::test_a_directory_that_is_swapped_before_something_is_removed",
        workspace("shutil.rmtree(name, dir_fd=self.handle)", "shutil.rmtree(self.path / name)"),
    ),
    *each(
        "test_gc.py::test_a_folder_of_the_spool_that_leads_elsewhere",
        Cut("hyper2kvmd/cli/cleanup.py", "os.open(folder, OPEN_DIRECTORY)", "os.open(folder, os.O_RDONLY)"),
    ),
    # ---- a working folder that was kept
    *each(
        "test_kept.py::test_a_right_that_was_withdrawn_meanwhile",
        Cut("hyper2kvmd/worker.py", "    if not are_as_before(", "    if False and not are_as_before("),
    ),
    *each("test_kept.py::test_the_finished_stages_of_another_submitter_under_the_same_number", PURPOSE),
    *each(
        "test_kept.py::test_the_folder_of_another_submitter_under_the_same_number",
        (PURPOSE, Cut("hyper2kvmd/disk/engine/checkpoint.py", "return found == _completed(key, fd)", "return True")),
    ),
)
