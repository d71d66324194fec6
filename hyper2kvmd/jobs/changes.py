"""The statements that make up the store's verbs, for use within one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from hyper2kvmd.errors import NotFound, rendered
from hyper2kvmd.jobs.outbox import announce, wanted_kinds
from hyper2kvmd.jobs.tables import SHOWN, batches, events, job_of, jobs, stages
from hyper2kvmd.model.jobs import MAX_ID, Job, Problem, Stage, State
from hyper2kvmd.model.results import PRODUCTS, Finished, recorded

EVENTS_KEPT = 500
MAX_NUMBERS = 1000
"""In one statement."""


UNDELAYED: Mapping[str, Any] = {"not_before": None, "delay_until": None}


def is_active() -> ColumnElement[bool]:
    return jobs.c.state.in_([state for state in State if state.active])


def without_active_group() -> ColumnElement[bool]:
    """Jobs whose spool file describes no job that is active: the file stays with its jobs until then."""
    member = jobs.alias()
    active = member.c.state.in_([state for state in State if state.active])
    return ~select(member.c.id).where(member.c.spool_group == jobs.c.spool_group, active).exists()


def fence(job_id: int, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return jobs.c.id == job_id, jobs.c.attempt == attempt, jobs.c.state == State.RUNNING


def can_be_retried(job_id: int) -> tuple[ColumnElement[bool], ...]:
    return jobs.c.id == job_id, jobs.c.state.in_((State.FAILED, State.CANCELLED))


def queued() -> dict[str, Any]:
    return {"state": State.QUEUED, "stage": None, "progress": 0.0, "reserved_bytes": 0, "cancelling": False}


def over(state: State) -> dict[str, Any]:
    return {"state": state, "finished": datetime.now(UTC), "reserved_bytes": 0, "cancelling": False, **UNDELAYED}


def change(connection: Connection, where: tuple[ColumnElement[bool], ...], **values: Any) -> bool:
    return connection.execute(update(jobs).where(*where).values(values)).rowcount == 1


def one(connection: Connection, job_id: int) -> Job:
    if job_id > MAX_ID:
        raise unknown_job(job_id)
    row = connection.execute(select(jobs, *SHOWN).where(jobs.c.id == job_id)).mappings().first()
    if row is None:
        raise unknown_job(job_id)
    return job_of(row)


def unknown_job(job_id: int) -> NotFound:
    return NotFound("job-unknown", f"there is no job {job_id}", hint="Run `h2kvmctl list` to see the job numbers")


def forget_stages(connection: Connection, job_id: int, keep: bool) -> None:
    """Forget the stages of a job whose working folder is gone; published images stay on record."""
    if keep:
        return
    published = select(stages.c.job_id).where(stages.c.job_id == job_id, stages.c.stage == Stage.PUBLISH.value)
    if connection.execute(published).first() is None:
        forget_products(connection, job_id)
        return
    _replace_products(connection, job_id, finished_stages(connection, job_id).without_content())


def keep_for_outcome(connection: Connection, job_id: int) -> None:
    """Reduce the products of a job that has succeeded to what its outcome shows."""
    kept = finished_stages(connection, job_id).for_outcome()
    others = stages.c.job_id == job_id, stages.c.stage != Stage.PUBLISH.value
    connection.execute(update(stages).where(*others).values(product=""))
    _replace_products(connection, job_id, kept)


def _replace_products(connection: Connection, job_id: int, finished: Finished) -> None:
    for stage, product in finished.products().items():
        where = stages.c.job_id == job_id, stages.c.stage == stage.value
        connection.execute(update(stages).where(*where).values(product=recorded(product)))


def finished_stages(connection: Connection, job_id: int) -> Finished:
    """The finished stages; none if this version cannot read them."""
    rows = connection.execute(select(stages.c.stage, stages.c.product).where(stages.c.job_id == job_id)).all()
    try:
        return Finished.of(PRODUCTS[Stage(row.stage)].model_validate_json(row.product) for row in rows)
    except ValueError:
        return Finished()


def forget_products(connection: Connection, job_id: int, stage: Stage = Stage.PLAN) -> None:
    """Forget the products of this stage and of those after it."""
    later = [one.value for one in list(Stage)[list(Stage).index(stage) :]]
    connection.execute(delete(stages).where(stages.c.job_id == job_id, stages.c.stage.in_(later)))


def forget_empty_batches(connection: Connection) -> None:
    member = select(jobs.c.id).where(jobs.c.batch_id == batches.c.id).exists()
    connection.execute(delete(batches).where(~member))


def forget_early_events(connection: Connection, job_id: int) -> None:
    """Keep the newest EVENTS_KEPT of a job, and those of its submission: the number of tries is unlimited."""
    of_job = events.c.job_id == job_id
    newest = select(events.c.id).where(of_job).order_by(events.c.id.desc()).limit(1).offset(EVENTS_KEPT)
    early = of_job, events.c.id <= newest.scalar_subquery(), events.c.kind != "submitted"
    connection.execute(delete(events).where(*early))


def first_line(problems: Sequence[Problem]) -> str:
    """With its line in the YAML, if it has one."""
    if not problems:
        return ""
    first = problems[0]
    return rendered(f"line {first.line}: {first.message}" if first.line else first.message, first.hint, first.code)


def record(connection: Connection, job: Job, kind: str, message: str = "") -> None:
    record_at(connection, job.id, job.attempt, kind, message)


def record_at(connection: Connection, job_id: int, attempt: int, kind: str, message: str = "") -> None:
    values = {"job_id": job_id, "at": datetime.now(UTC), "attempt": attempt, "kind": kind, "message": message}
    connection.execute(insert(events).values(values))
    announce(connection, job_id, kind, message)


def record_all(connection: Connection, rows: Sequence[tuple[int, int, str, str]]) -> None:
    """Job, attempt, kind and message of events of different jobs, whose early events are forgotten."""
    if not rows:
        return
    names, at = ("job_id", "attempt", "kind", "message"), datetime.now(UTC)
    connection.execute(insert(events), [{**dict(zip(names, row, strict=True)), "at": at} for row in rows])
    _forget_early_events_of(connection, [row[0] for row in rows])
    wanted = wanted_kinds(connection)
    for job_id, _, kind, message in rows:
        if kind in wanted:
            announce(connection, job_id, kind, message)


def _forget_early_events_of(connection: Connection, job_ids: Sequence[int]) -> None:
    for start in range(0, len(job_ids), MAX_NUMBERS):
        of_jobs = events.c.job_id.in_(job_ids[start : start + MAX_NUMBERS])
        many = select(events.c.job_id).where(of_jobs).group_by(events.c.job_id)
        for job_id in connection.execute(many.having(func.count() > EVENTS_KEPT)).scalars().all():
            forget_early_events(connection, job_id)
