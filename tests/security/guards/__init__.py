"""Every guard that keeps an attack out, and how to take it away: the tests named beside it must fail then.

tests/unit/test_guards.py holds that the tables keep up with the code; `make test-mutations` tries them.
"""

from tests.security.guards import (
    archives,
    boundary,
    control,
    descriptions,
    destinations,
    drivers,
    event_logs,
    hives,
    inputs,
    names,
    notifications,
    ntfs,
    overwriting,
    places,
    service,
    strangers,
    waiting,
    windows,
    work,
)
from tests.security.guards.guard import Guard

ALL = (
    *(boundary, service, inputs, archives, descriptions, hives, event_logs, drivers, ntfs, windows),
    *(places, destinations, names, overwriting, strangers, control, waiting, notifications, work),
)
GUARDS: tuple[Guard, ...] = tuple(guard for module in ALL for guard in module.GUARDS)
OTHERS: dict[str, str] = {**boundary.OTHERS, **inputs.OTHERS}
"""Tests, or cases of them, that nothing of ours makes pass; and what does."""

__all__ = ["GUARDS", "OTHERS", "Guard"]
