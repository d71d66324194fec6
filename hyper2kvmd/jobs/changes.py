"""The statements that the store's verbs are made of, for use within one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.jobs.tables import events, job_of, jobs, stages
from hyper2kvmd.model.jobs import Job, Problem, Stage, State


def is_active() -> ColumnElement[bool]:
    return jobs.c.state.in_([state for state in State if state.active])


def fence(job_id: int, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return jobs.c.id == job_id, jobs.c.attempt == attempt, jobs.c.state == State.RUNNING


def can_be_retried(job_id: int) -> tuple[ColumnElement[bool], ...]:
    return jobs.c.id == job_id, jobs.c.state.in_((State.FAILED, State.CANCELLED))


def queued() -> dict[str, Any]:
    return {"state": State.QUEUED, "stage": None, "progress": 0.0, "reserved_bytes": 0, "cancelling": False}


def over(state: State) -> dict[str, Any]:
    return {"state": state, "finished": datetime.now(UTC), "reserved_bytes": 0, "cancelling": False, "not_before": None}


def change(connection: Connection, where: tuple[ColumnElement[bool], ...], **values: Any) -> bool:
    return connection.execute(update(jobs).where(*where).values(values)).rowcount == 1


def one(connection: Connection, job_id: int) -> Job:
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().first()
    if row is None:
        raise InvalidInput("job-unknown", f"there is no job {job_id}", hint="run `h2kvmctl list` for the job numbers")
    return job_of(row)


def forget_stages(connection: Connection, job_id: int, keep: bool) -> None:
    """A working folder that is gone takes its stages along, but what was published stays published."""
    published = select(stages.c.job_id).where(stages.c.job_id == job_id, stages.c.stage == Stage.PUBLISH.value)
    if not keep and connection.execute(published).first() is None:
        connection.execute(delete(stages).where(stages.c.job_id == job_id))


def forget_products(connection: Connection, job_id: int, stage: Stage) -> None:
    """Forget what the stage and those after it produced."""
    later = [one.value for one in list(Stage)[list(Stage).index(stage) :]]
    connection.execute(delete(stages).where(stages.c.job_id == job_id, stages.c.stage.in_(later)))


def first_line(problems: Sequence[Problem]) -> str:
    return f"{problems[0].message} [{problems[0].code}]" if problems else ""


def record(connection: Connection, job: Job, kind: str, message: str = "") -> None:
    record_at(connection, job.id, job.attempt, kind, message)


def record_at(connection: Connection, job_id: int, attempt: int, kind: str, message: str = "") -> None:
    values = {"job_id": job_id, "at": datetime.now(UTC), "attempt": attempt, "kind": kind, "message": message}
    connection.execute(insert(events).values(values))
