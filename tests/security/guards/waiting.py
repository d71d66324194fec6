"""What keeps submitters from stopping the queue with times, windows and jobs that wait for others."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, GONE, NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

WAITING = "test_waiting.py::test_"
STORE = "tests/unit/test_store_dependencies.py::test_"

binding = partial(Cut, "hyper2kvmd/yaml_binding.py")
changes = partial(Cut, "hyper2kvmd/jobs/changes.py")
cards = partial(Cut, "hyper2kvmd/jobs/cards.py")
dependencies = partial(Cut, "hyper2kvmd/jobs/dependencies.py")

GUARDS: tuple[Guard, ...] = (
    *each(
        cases(f"{WAITING}a_time_at_the_end_of_the_calendar", "9999-12-31T23:59:59Z", "9000-01-01 00:00Z"),
        binding("_moment", "if LATEST", ALWAYS),
    ),
    *each(f"{WAITING}waves_that_multiply", dependencies("require_room", "if MAX_NEEDED", NEVER)),
    *each(
        f"{WAITING}a_job_that_is_held_because_of_another_for_ever",
        changes("record_all", "call _forget_early_events_of", GONE),
    ),
    *each(
        f"{STORE}an_operators_own_job_comes_first_and_those_of_several_others_are_ambiguous",
        dependencies("_of_others", "if 1", NEVER),
    ),
    *each(
        f"{STORE}a_job_that_has_succeeded_is_forgotten_though_others_needed_it",
        dependencies("needed_by_others", "call and_", "$2"),
        dependencies("needed_by_others", "call and_", "$1"),
    ),
    *each(f"{WAITING}a_mac_address_of_another_submitters_machine", cards("replace_cards", "if own", ALWAYS)),
)
