"""What keeps `overwrite` from files that no earlier job of the submitter has put there, or that changed since."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, GONE, NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

TESTS = "tests/integration/test_overwrite.py"
CHANGED = f"{TESTS}::test_a_file_that_changed_is_not_replaced"

placed = partial(Cut, "hyper2kvmd/host/placed.py")
placing = partial(Cut, "hyper2kvmd/host/placing.py")

GUARDS: tuple[Guard, ...] = (
    *each(f"{TESTS}::test_without_the_key_nothing_is_replaced", placing("Placing._name", "if overwrite", ALWAYS)),
    *each(f"{TESTS}::test_results_of_another_submitter_are_not_replaced", placed("_text", "item submitter_uid", GONE)),
    *each(f"{TESTS}::test_results_of_another_machine_are_not_replaced", placed("_text", "item vm_name", GONE)),
    *each(cases(CHANGED, "web01.raw-edited"), placed("_state", "item st_mtime_ns", GONE)),
    *each(cases(CHANGED, "web01.raw-appended"), placed("_state", "item st_size", GONE)),
    *each(cases(CHANGED, "web01.raw-copied"), placed("_state", "item st_ino", GONE)),
    *each(cases(CHANGED, "web01.raw-given_away"), placed("is_ours", "operand geteuid", NEVER)),
    *each(cases(CHANGED, "web01.raw-linked"), placed("is_ours", "mention O_NOFOLLOW", "0")),
    *each(f"{TESTS}::test_a_failure_brings_the_old_files_back", placing("Placing.__exit__", "call _restore", GONE)),
    *each(
        f"{TESTS}::test_a_job_that_was_killed_brings_them_back",
        placing("Placing.start_over", "call _restore", GONE),
    ),
    *each(
        f"{TESTS}::test_the_next_job_brings_back_what_a_killed_one_set_aside",
        placing("Placing.__enter__", "call _bring_back", GONE),
    ),
    *each(
        f"{TESTS}::test_files_that_a_running_job_set_aside_are_left_to_it",
        placing("Placing.__exit__", "call _remove_left_behind", GONE),
        placing("Placing._bring_back", "if _lock", ALWAYS),
        placing("Placing._remove_left_behind", "if _lock", ALWAYS),
    ),
    *each(
        f"{TESTS}::test_a_hidden_file_that_is_not_of_such_a_job_is_left",
        placing("Placing._left_behind", "operand is_ours", ALWAYS),
    ),
    *each(
        "tests/integration/test_replaced_domains.py::test_a_domain_that_is_started_at_the_last_moment_is_not_replaced",
        Cut("hyper2kvmd/targets/libvirt/replacing.py", "undefine", "if find_replaceable", NEVER),
    ),
    *each(
        "tests/integration/test_leftovers.py::test_a_link_of_root_to_the_directory_is_followed_and_one_of_others_is_not",
        Cut("hyper2kvmd/host/leftovers.py", "tidy_directory", "argument follow_links", "path.resolve()"),
    ),
)
