"""What an attempt has put on record before: a change that is repeated must not count twice."""

from __future__ import annotations

from sqlalchemy import Connection, select

from hyper2kvmd.jobs.tables import events, jobs, stages
from hyper2kvmd.model.jobs import Stage, State


def has_events(connection: Connection, job_id: int, kind: str, *messages: str, attempt: int | None = None) -> bool:
    """Whether the job, or that attempt of it, has events with all these texts."""
    same = [events.c.job_id == job_id, events.c.kind == kind, events.c.message.in_(messages)]
    if attempt is not None:
        same.append(events.c.attempt == attempt)
    found = connection.execute(select(events.c.message).where(*same).distinct()).scalars()
    return set(found) == set(messages)


def has_finished(connection: Connection, job_id: int, attempt: int, stage: Stage) -> bool:
    same = stages.c.job_id == job_id, stages.c.attempt == attempt, stages.c.stage == stage.value
    return connection.execute(select(stages.c.job_id).where(*same)).first() is not None


def is_now(connection: Connection, job_id: int, attempt: int, state: State) -> bool:
    """Whether that attempt has brought its job into that state already."""
    same = jobs.c.id == job_id, jobs.c.attempt == attempt, jobs.c.state == state
    return connection.execute(select(jobs.c.id).where(*same)).first() is not None
