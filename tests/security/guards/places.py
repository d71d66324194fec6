"""What guards the files of others from those who own the folders that a job works in, or lie above them."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, GONE, NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

SWAPPED = "test_places.py::test_a_place_that_somebody_else_can_swap"

ON_THE_WAY = "test_places.py::test_a_link_on_the_way_is_its_owners_choice"
CHOSEN = "test_gc.py::test_a_conversion_directory_of_somebody_elses_choice"

placing = partial(Cut, "hyper2kvmd/host/placing.py")
destination = partial(Cut, "hyper2kvmd/host/destination.py")
directory = partial(Cut, "hyper2kvmd/targets/directory.py")
definition = partial(Cut, "hyper2kvmd/targets/libvirt/definition.py")
workspace = partial(Cut, "hyper2kvmd/host/workspace.py")
conversion_dir = partial(Cut, "hyper2kvmd/host/conversion_dir.py")
person = partial(Cut, "hyper2kvmd/host/person.py")
space = partial(Cut, "hyper2kvmd/host/space.py")

NEW = (placing("Placing.create", "mention O_EXCL", "0"), placing("Placing.create", "mention O_NOFOLLOW", "0"))
OWN = definition("define", "call virsh define", "$0($1, $2, str(xml))")
PURPOSE = workspace("_start_over_for_another", "if read_text", "$0")

GUARDS: tuple[Guard, ...] = (
    # ---- the output directory
    *each(
        "test_places.py::test_what_lies_under_the_names_of_drafts",
        placing("Placing.start_over", "call _remove _ending", GONE),
    ),
    *each(
        cases("test_places.py::test_what_lies_under_the_name_of_the_trial_file", "link", "hard link"),
        space("write_a_little", "call unlink #1", GONE),
    ),
    *each(
        cases("test_places.py::test_what_lies_under_the_name_of_the_trial_file", "hard link"),
        (space("write_a_little", "call unlink #1", GONE), space("write_a_little", "mention O_EXCL", "0")),
    ),
    *each("test_places.py::test_a_draft_that_is_planted_while_a_job_publishes", NEW),
    *each(
        "test_places.py::test_a_draft_that_is_planted_before_a_copy_onto_another_file_system",
        (*NEW, directory("_placed", "if EXDEV", NEVER)),
    ),
    *each(
        "test_places.py::test_a_draft_that_is_swapped_before_it_gets_its_name",
        placing(
            "Placing._name",
            "call link",
            "os.link(self._draft($2), $2, src_dir_fd=self._directory, dst_dir_fd=self._directory)",
        ),
    ),
    *each(
        "test_places.py::test_an_output_that_is_swapped_for_a_link_after_the_plan",
        destination("_require_allowed", "if joinpath", NEVER),
    ),
    # ---- libvirt
    *each("test_places.py::test_libvirt_does_not_get_a_domain_from_its_folders_owner", OWN),
    *each(
        "test_places.py::test_libvirt_keeps_no_domain_with_other_disks",
        (OWN, definition("define", "call virsh undefine", GONE)),
    ),
    # ---- the conversion directory
    *each(
        (
            *cases(SWAPPED, "theirs above", "theirs above, sticky", "theirs", "root's"),
            "test_places.py::test_a_sticky_folder_keeps_what_is_ours",
        ),
        workspace("require_safe", "operand st_uid", ALWAYS),
    ),
    *each(cases(SWAPPED, "root's"), workspace("ensure_private_dir", "item geteuid #2", "0, os.geteuid()")),
    *each(
        cases(SWAPPED, "open above", "open above to a group", "open", "open, sticky", "open to a group"),
        workspace("require_safe", "operand strangers_may_write", ALWAYS),
    ),
    *each(cases(SWAPPED, "open above to an empty group"), person("Person.alone_in", "operand gr_name", NEVER)),
    *each(
        "test_places.py::test_what_an_acl_lets_somebody_swap", person("strangers_may_write", "operand entries", NEVER)
    ),
    *each("test_places.py::test_a_group_with_somebody_else_in_it", person("Person.alone_in", "operand gr_mem", NEVER)),
    *each(
        "test_places.py::test_a_place_that_is_swapped_for_a_link_after_it_was_looked_up",
        workspace("require_safe", "if S_ISDIR", NEVER),
    ),
    # ---- what `h2kvmctl gc` removes
    *each(
        (
            *cases(CHOSEN, "link", "link above", "link that they can replace", "link of the service's"),
            *cases(ON_THE_WAY, "nobody-code0"),
        ),
        workspace("follow_links", "call _require_own_link", GONE),
    ),
    *each(
        cases(CHOSEN, "link that they can replace"),
        workspace("_require_own_link", "for parents", "()"),
    ),
    *each(cases(CHOSEN, "link", "link above"), workspace("_require_own_link", "before directory-shared", NEVER)),
    *each(
        cases(CHOSEN, "directory"),
        conversion_dir("open_conversion_dir", "call require_safe #1", GONE),
    ),
    *each(
        cases(CHOSEN, "directory above"),
        conversion_dir("open_conversion_dir", "call require_safe sticky", GONE),
    ),
    *each(
        (
            "test_gc.py::test_a_conversion_directory_behind_a_link_of_roots",
            *cases(ON_THE_WAY, "hyper2kvm-code1", "root-code2"),
        ),
        workspace("_require_own_link", "value geteuid", "(os.geteuid() + 1,)"),
    ),
    *each(
        "test_gc.py::test_a_directory_that_is_swapped_before_it_is_opened",
        conversion_dir("open_conversion_dir", "if name_of", NEVER),
    ),
    *each(
        "test_gc.py::test_a_directory_that_is_swapped_before_something_is_removed",
        conversion_dir("ConversionDir.discard", "call remove_tree", "remove_tree(os.open(self.path, os.O_RDONLY), $2)"),
    ),
    *each(
        "test_gc.py::test_a_folder_of_the_spool_that_leads_elsewhere",
        Cut("hyper2kvmd/cli/cleanup.py", "_spool_files", "argument OPEN_DIRECTORY", "os.O_RDONLY"),
    ),
    # ---- a working folder that was kept
    *each(
        "test_kept.py::test_a_right_that_was_withdrawn_meanwhile",
        Cut("hyper2kvmd/worker.py", "_valid_products", "if is_as_before", NEVER),
    ),
    *each(
        "test_kept.py::test_an_image_that_has_the_name_of_what_was_published",
        Cut("hyper2kvmd/targets/directory.py", "_is_as_published", "return inode", ALWAYS),
    ),
    *each("test_kept.py::test_the_finished_stages_of_another_submitter_under_the_same_number", PURPOSE),
    *each(
        "test_kept.py::test_the_folder_of_another_submitter_under_the_same_number",
        (PURPOSE, Cut("hyper2kvmd/disk/engine/checkpoint.py", "is_complete", "return _completed", ALWAYS)),
    ),
)
