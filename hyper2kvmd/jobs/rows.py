"""A row that cannot be read back becomes a job all the same: one damaged row must not hide the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from hyper2kvmd.model.jobs import Counts, Job, Problem, State

UNREADABLE = "job-unreadable"
UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for a time that cannot be read."""
STATES = frozenset(state.value for state in State)
STAND_INS: Mapping[str, Any] = {
    "state": State.FAILED,
    "vm_name": "unreadable",
    "priority": 0,
    "content_key": "",
    "created": UNKNOWN_TIME,
}
"""For fields without a default."""


def job_from(values: Mapping[str, Any], unread: tuple[str, ...] = ()) -> Job:
    """The job with these values. Fields that are invalid or `unread` get stand-ins, and a problem names them."""
    try:
        return _with_problem(Job.model_validate(dict(values)), unread)
    except ValidationError as error:
        wrong = {str(one["loc"][0]) for one in error.errors() if one["loc"]} & set(Job.model_fields)
    stand_ins = {name: STAND_INS[name] for name in wrong if name in STAND_INS}
    rest = {name: value for name, value in values.items() if name not in wrong}
    return _with_problem(Job.model_validate({**rest, **stand_ins}), (*unread, *sorted(wrong)))


def count_of(stored: Any) -> int:
    """0 for a number that cannot be read."""
    return stored if isinstance(stored, int) else 0


def seconds_of(stored: Any) -> float | None:
    """None for a number that cannot be read."""
    return float(stored) if isinstance(stored, (int, float)) else None


def known_state(stored: str) -> State | None:
    """None if no version up to this one has such a state."""
    return State(stored) if stored in STATES else None


def counts_of(numbers: Iterable[tuple[str, int]]) -> Counts:
    """Jobs whose state cannot be read are shown, and counted, as failed."""
    found: Counter[str] = Counter()
    for stored, number in numbers:
        found[(known_state(stored) or State.FAILED).value] += number
    return Counts.model_validate(found)


def unreadable(job_id: int, columns: tuple[str, ...]) -> Problem:
    return Problem(
        code="job-unreadable",
        message=f"job {job_id}: its record cannot be read: {', '.join(columns)}",
        hint="Submit the migration again; after a downgrade, install the newer version again, then run "
        f"`h2kvmctl retry {job_id}`",
        kind="permanent",
    )


def _with_problem(job: Job, unread: tuple[str, ...]) -> Job:
    if not unread or any(one.code == UNREADABLE for one in job.problems):
        return job
    return job.with_changes(problems=(unreadable(job.id, unread), *job.problems))
