"""What guards the service from event logs of Windows guests, and from the result of their first boot."""

from __future__ import annotations

from tests.security.guards.cut import NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

READ = "test_event_logs.py::test_a_hostile_event_log_is_read_soon"
ROOM = "hyper2kvmd/guest/windows/boot_proof"

GUARDS: tuple[Guard, ...] = (
    *each(
        cases(READ, "a long name again and again"),
        Cut(f"{ROOM}/binary_xml.py", "Cursor._name", "if NAME_LIMIT", NEVER),
    ),
    *each(
        cases(READ, "templates without end"),
        Cut(f"{ROOM}/binary_xml.py", "_template", "argument TOKENS_LIMIT", "1 << 30"),
    ),
    *each(
        cases(READ, "records without end"),
        Cut(f"{ROOM}/event_log.py", "read_event_log", "mention RECORDS_LIMIT", "(1 << 30)"),
    ),
    *each(
        "test_event_logs.py::test_a_hostile_result_of_the_first_boot_writes_no_control_characters",
        Cut(f"{ROOM}/traces.py", "_result", "call printable", "$1"),
    ),
)
