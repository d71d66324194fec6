"""Which job is the next one, for use within one transaction."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, null, or_, select, update

from hyper2kvmd.jobs.tables import jobs
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import State, WaitingFor

Admits = Callable[[tuple[str, ...]], bool]
"""Whether a job that reads from these directories may start now."""
BY_WALL_CLOCK = (WaitingFor.TIME, WaitingFor.WINDOW)
Usable = Callable[[str], bool]
"""Whether the directories of a job, given its migration as JSON, can be written to."""
PASSED_OVER = (WaitingFor.SOURCE, WaitingFor.STORAGE)
MAX_MARKED = 500
"""Jobs of a busy source that one search for a job marks. It limits the time of a transaction that blocks all others."""


def directories_of(migration: Migration) -> tuple[str, ...]:
    """The directories that the job reads from."""
    return tuple(sorted({str(path.parent) for path in migration.sources}))


def sources_of(migration: Migration) -> str:
    """For the column `sources`."""
    return json.dumps(directories_of(migration))


@dataclass(frozen=True)
class Times:
    """By which clocks jobs are due."""

    wall: datetime
    since_boot: float
    """The uptime in seconds. Delays are those of this boot: see `Attempts.recover`."""
    wall_trusted: bool = True
    """False: no job may start that has a window or a time."""


def next_job(connection: Connection, times: Times, admits: Admits | None, usable: Usable | None = None) -> int | None:
    """The queued job with the highest priority, then the oldest, whose time has come and which is admitted."""
    best = _claimable(jobs.c.id, times=times)
    if admits is not None or usable is not None:
        admitted = _admitted(connection, times, admits or _any, usable or _any)
        best = best.where(jobs.c.id == admitted)
    number: int | None = connection.execute(best.limit(1).with_for_update(skip_locked=True)).scalar_one_or_none()
    return number


def forget_busy_sources(connection: Connection) -> None:
    """For when other jobs may be admitted than before."""
    busy = jobs.c.state == State.QUEUED, jobs.c.waiting_for.in_(PASSED_OVER)
    connection.execute(update(jobs).where(*busy).values(waiting_for=None))


def _any(_asked: object) -> bool:
    return True


def _admitted(connection: Connection, times: Times, admits: Admits, usable: Usable) -> int | None:
    """The first admitted job. Those that are passed over wait for their source or a file system from now on."""
    passed: dict[WaitingFor, list[int]] = {reason: [] for reason in PASSED_OVER}
    found = None
    migration_of = null() if usable is _any else jobs.c.migration
    columns = jobs.c.id, jobs.c.sources, jobs.c.waiting_for, migration_of
    with connection.execute(_claimable(*columns, times=times)) as rows:
        for number, sources, waiting_for, migration in rows:
            if not usable(migration):
                reason = WaitingFor.STORAGE
            elif not admits(_directories(sources)):
                reason = WaitingFor.SOURCE
            else:
                found = number
                break
            if waiting_for != reason and len(passed[reason]) < MAX_MARKED:
                passed[reason].append(number)
    for reason, numbers in passed.items():
        if numbers:
            connection.execute(update(jobs).where(jobs.c.id.in_(numbers)).values(waiting_for=reason))
    return found


def _directories(sources: str) -> tuple[str, ...]:
    """None of a text that cannot be read: the job fails or starts, but blocks no other one."""
    try:
        return tuple(map(str, json.loads(sources)))
    except (TypeError, ValueError):
        return ()


def _claimable(*columns: Any, times: Times) -> Select[Any]:
    reached = or_(jobs.c.not_before.is_(None), jobs.c.not_before <= times.wall)
    due = or_(and_(jobs.c.delay_until.is_(None), reached), jobs.c.delay_until <= times.since_boot)
    if not times.wall_trusted:
        due = and_(due, or_(jobs.c.waiting_for.is_(None), jobs.c.waiting_for.not_in(BY_WALL_CLOCK)))
    free = or_(jobs.c.waiting_for.is_(None), jobs.c.waiting_for != WaitingFor.AFTER)
    queued = select(*columns).where(jobs.c.state == State.QUEUED, due, free)
    return queued.order_by(jobs.c.priority.desc(), jobs.c.id)
