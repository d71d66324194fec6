"""What keeps submitters from stopping the queue with times, windows and jobs that wait for others."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

WAITING = "test_waiting.py::test_"

binding = partial(Cut, "hyper2kvmd/yaml_binding.py")
dependencies = partial(Cut, "hyper2kvmd/jobs/dependencies.py")

GUARDS: tuple[Guard, ...] = (
    *each(
        cases(f"{WAITING}a_time_at_the_end_of_the_calendar", "9999-12-31T23:59:59Z", "9000-01-01 00:00Z"),
        binding("_moment", "if LATEST", ALWAYS),
    ),
    *each(f"{WAITING}waves_that_multiply", dependencies("require_room", "if MAX_NEEDED", NEVER)),
)
