"""Submissions, and the statements that put them into the queue, for use within one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from hyper2kvmd.jobs.candidates import sources_of
from hyper2kvmd.jobs.changes import first_line, is_active, record
from hyper2kvmd.jobs.changes import one as one_job
from hyper2kvmd.jobs.dependencies import arrange, depend, needed_jobs, require_room
from hyper2kvmd.jobs.tables import batches, events, job_of, jobs, notes_adapter, problems_adapter
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.jobs import NOBODY_AT_ALL, Job, Problem, State, WaitingFor


@dataclass(frozen=True)
class Origin:
    """Origin of a submission. `claim` is the permanent name of the spool file, `name` the one its owner gave it."""

    submitter: str = ""
    uid: int = NOBODY_AT_ALL
    name: str | None = None
    claim: str | None = None
    path: str | None = None
    """Current path of the spool file, relative to the spool directory."""
    spool_group: str | None = None
    """Permanent name of the spool file, the same for all its machines. Only the first one has `claim` and `path`."""
    operator: bool = False
    """Its jobs may wait for those of another submitter."""


@dataclass(frozen=True)
class Submission:
    migration: Migration
    content_key: str
    origin: Origin
    notes: tuple[Concern, ...] = ()
    batch: str | None = None
    """The name of its batch."""


@dataclass(frozen=True)
class Refusal:
    """A submission that cannot be run and is rejected."""

    vm_name: str
    problems: tuple[Problem, ...]
    origin: Origin


@dataclass(frozen=True)
class Submitted:
    job: Job
    new: bool
    """False: the same content is active already, as this job."""


def _submit(connection: Connection, asked: Submission, batch_id: int | None) -> Submitted:
    """Queue a migration, unless the same content is queued, held or running.

    Raises IntegrityError for a spool file that is on record already.
    """
    try:
        return _queue(connection, asked, batch_id)
    except IntegrityError:
        same = jobs.c.content_key == asked.content_key, is_active()
        row = connection.execute(select(jobs).where(*same)).mappings().first()
        if row is None:  # it has ended meanwhile
            return _queue(connection, asked, batch_id)
        return Submitted(job_of(row), new=False)


def _queue(connection: Connection, asked: Submission, batch_id: int | None) -> Submitted:
    with connection.begin_nested():
        job = _insert(connection, columns_of(asked, batch_id))
    record(connection, job, "submitted", submitted_by(asked))
    return Submitted(job, new=True)


def columns_of(asked: Submission, batch_id: int | None) -> dict[str, Any]:
    """The row of a job that waits for whatever it has to wait for: see `arrange`."""
    return {
        **columns_of_origin(asked.origin),
        "state": State.QUEUED,
        "vm_name": asked.migration.vm_name,
        "priority": asked.migration.priority,
        "migration": asked.migration.model_dump_json(),
        "content_key": asked.content_key,
        "notes": notes_adapter.dump_json(asked.notes).decode(),
        "batch_id": batch_id,
        "sources": sources_of(asked.migration),
        "waiting_for": WaitingFor.AFTER,
    }


def submitted_by(asked: Submission) -> str:
    return f"by {asked.origin.submitter}" if asked.origin.submitter else ""


class _Active(Exception):
    """Machines of a file that are active already."""

    def __init__(self, found: list[tuple[Submission, Job]]) -> None:
        super().__init__()
        self.found = found


def submit_together(connection: Connection, asked: Sequence[Submission]) -> list[Submitted]:
    """Queue all of them as jobs of one batch, or none if some are active already; then only these are returned.

    Raises InvalidInput as `needed_jobs` and `require_room` do.
    """
    try:
        with connection.begin_nested():
            return _enter(connection, asked)
    except _Active as active:
        for one, job in active.found:
            record_duplicate(connection, job, one.origin)
        return [Submitted(one_job(connection, job.id), new=False) for _, job in active.found]


def _enter(connection: Connection, asked: Sequence[Submission]) -> list[Submitted]:
    machines = {one.migration.vm_name for one in asked}
    others = {name for one in asked for name in one.migration.after} - machines
    origin = asked[0].origin
    known = needed_jobs(connection, sorted(others), origin.uid, operator=origin.operator)
    if not origin.operator:
        named = (name for one in asked for name in one.migration.after)
        require_room(connection, origin.uid, sum(len(known.get(name, (0,))) for name in named))
    batch_id = enter_batch(connection, asked[0])
    done = [_submit(connection, one, batch_id) for one in asked]
    active = [(one, submitted.job) for one, submitted in zip(asked, done, strict=True) if not submitted.new]
    if active:
        raise _Active(active)
    known = {**known, **{submitted.job.vm_name: (submitted.job.id,) for submitted in done}}
    for one, submitted in zip(asked, done, strict=True):
        depend(connection, submitted.job.id, (number for name in one.migration.after for number in known[name]))
    entered = [submitted.job.id for submitted in done]
    arrange(connection, jobs.c.id.between(min(entered), max(entered)))
    return [replace(submitted, job=one_job(connection, submitted.job.id)) for submitted in done]


def batch_name(machines: Sequence[Migration], stem: str) -> str | None:
    """The batch of the machines of one file; a file with one machine is a batch only by name."""
    return machines[0].batch or (stem if len(machines) > 1 else None)


def enter_batch(connection: Connection, asked: Submission) -> int | None:
    """The number of the submitter's batch of that name that has active jobs, or of a new one."""
    if asked.batch is None:
        return None
    origin = asked.origin
    member = select(jobs.c.id).where(jobs.c.batch_id == batches.c.id, is_active()).exists()
    same = batches.c.submitter_uid == origin.uid, batches.c.name == asked.batch, member
    newest = select(batches.c.id).where(*same).order_by(batches.c.id.desc()).limit(1)
    number = connection.execute(newest).scalar()
    if number is None:
        values = {"name": asked.batch, "submitter": origin.submitter, "submitter_uid": origin.uid}
        inserted = insert(batches).values(**values, created=datetime.now(UTC)).returning(batches.c.id)
        number = connection.execute(inserted).scalar_one()
    return int(number)


def refuse(connection: Connection, refusal: Refusal) -> Job:
    """Record a rejected submission."""
    columns = {
        **columns_of_origin(refusal.origin),
        "state": State.REJECTED,
        "vm_name": refusal.vm_name,
        "priority": 0,
        "content_key": "",
        "problems": problems_adapter.dump_json(refusal.problems).decode(),
        "finished": datetime.now(UTC),
    }
    job = _insert(connection, columns)
    record(connection, job, "rejected", first_line(refusal.problems))
    return job


def record_duplicate(connection: Connection, job: Job, origin: Origin) -> None:
    """Record the first of several duplicates in a row."""
    last = select(events.c.kind).where(events.c.job_id == job.id).order_by(events.c.id.desc()).limit(1)
    if connection.execute(last).scalar() != "duplicate":
        way = f": {origin.name}" if origin.name else " over the control socket"
        record(connection, job, "duplicate", f"the same content was submitted again{way}")


def _insert(connection: Connection, columns: Mapping[str, Any]) -> Job:
    return job_of(connection.execute(insert(jobs).returning(jobs), [columns]).mappings().one())


def columns_of_origin(origin: Origin) -> dict[str, Any]:
    return {
        "submitter": origin.submitter,
        "submitter_uid": origin.uid,
        "created": datetime.now(UTC),
        "spool_name": origin.name,
        "spool_claim": origin.claim,
        "spool_path": origin.path,
        "spool_group": origin.spool_group,
    }
