"""What guards the service from registry hives and transaction logs of Windows guests."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import NEVER, Cut
from tests.security.guards.guard import Guard, cases, each

HIVE = "test_hives.py::test_a_hostile_hive_is_refused_soon_in_little_memory"
LOG = "test_hives.py::test_a_hostile_log_is_refused_in_little_memory"
ROOM = "hyper2kvmd/guest/windows/registry"

cells = partial(Cut, f"{ROOM}/cells.py")
log = partial(Cut, f"{ROOM}/log.py")

GUARDS: tuple[Guard, ...] = (
    *each(cases(HIVE, "a key in itself"), Cut(f"{ROOM}/hive.py", "Key.below", "if DEEPEST", NEVER)),
    *each(cases(HIVE, "keys without end"), cells("Cells.work", "if _work_left", NEVER)),
    *each(cases(HIVE, "lists without end"), Cut(f"{ROOM}/lists.py", "read_leaf", "call work", "None")),
    *each(cases(HIVE, "a key in two lists"), Cut(f"{ROOM}/editor.py", "Editor._with_all_below", "if seen", NEVER)),
    *each(cases(HIVE, "data without end"), Cut(f"{ROOM}/records.py", "_data", "if LARGEST_DATA", NEVER)),
    *each(cases(LOG, "a hive without end"), log("_entry", "operand LARGEST_HIVE", "$0 > 0")),
    *each(cases(LOG, "a hive without content"), log("replay", "if logged", NEVER)),
    *each(cases(LOG, "a page behind the hive", "a page across the end"), log("_entry", "operand to", NEVER)),
    *each(cases(LOG, "another hash"), log("_entry", "if body_hash", NEVER)),
    *each(cases(LOG, "another number"), log("_entries", "operand sequence", "True")),
    *each(
        "test_hives.py::test_names_of_a_hostile_hive_write_no_control_characters",
        Cut(f"{ROOM}/reg_text.py", "plain", "return", "text"),
    ),
)
