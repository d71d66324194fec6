"""Submissions, and the statements that put them into the queue, for use within one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from hyper2kvmd.jobs.changes import first_line, is_active, record
from hyper2kvmd.jobs.tables import events, job_of, jobs, notes_adapter, problems_adapter
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.jobs import NOBODY_AT_ALL, Job, Problem, State


@dataclass(frozen=True)
class Origin:
    """Origin of a submission. `claim` is the permanent name of the spool file, `name` the one its owner gave it."""

    submitter: str = ""
    uid: int = NOBODY_AT_ALL
    name: str | None = None
    claim: str | None = None
    path: str | None = None
    """Current path of the spool file, relative to the spool directory."""
    batch: str | None = None
    """Permanent name of the spool file, the same for all its machines. Only the first one has `claim` and `path`."""


@dataclass(frozen=True)
class Submission:
    migration: Migration
    content_key: str
    origin: Origin
    notes: tuple[Concern, ...] = ()


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


def submit(connection: Connection, asked: Submission) -> Submitted:
    """Queue a migration, unless the same content is queued, held or running.

    Raises IntegrityError for a spool file that is on record already.
    """
    try:
        return _queue(connection, asked)
    except IntegrityError:
        same = jobs.c.content_key == asked.content_key, is_active()
        row = connection.execute(select(jobs).where(*same)).mappings().first()
        if row is None:  # it has ended meanwhile
            return _queue(connection, asked)
        _record_duplicate(connection, job_of(row), asked.origin)
        return Submitted(job_of(row), new=False)


def _queue(connection: Connection, asked: Submission) -> Submitted:
    with connection.begin_nested():
        job = _insert(
            connection,
            asked.origin,
            state=State.QUEUED,
            vm_name=asked.migration.vm_name,
            priority=asked.migration.priority,
            migration=asked.migration.model_dump_json(),
            content_key=asked.content_key,
            notes=notes_adapter.dump_json(asked.notes).decode(),
        )
    record(connection, job, "submitted", f"by {asked.origin.submitter}" if asked.origin.submitter else "")
    return Submitted(job, new=True)


class _Partly(Exception):
    """Some machines of a batch are active already."""


def submit_together(connection: Connection, batch: Sequence[Submission]) -> list[Submitted]:
    """Queue all of them, or none if some are active already; then only these are returned."""
    if len(batch) == 1:
        return [submit(connection, batch[0])]
    active: list[tuple[Submission, Job]] = []
    try:
        with connection.begin_nested():
            done = [submit(connection, asked) for asked in batch]
            active = [(asked, one.job) for asked, one in zip(batch, done, strict=True) if not one.new]
            if 0 < len(active) < len(batch):
                raise _Partly
            return done
    except _Partly:
        for asked, job in active:
            _record_duplicate(connection, job, asked.origin)
        return [Submitted(job, new=False) for _, job in active]


def refuse(connection: Connection, refusal: Refusal) -> Job:
    """Record a rejected submission."""
    job = _insert(
        connection,
        refusal.origin,
        state=State.REJECTED,
        vm_name=refusal.vm_name,
        priority=0,
        content_key="",
        problems=problems_adapter.dump_json(refusal.problems).decode(),
        finished=datetime.now(UTC),
    )
    record(connection, job, "rejected", first_line(refusal.problems))
    return job


def _record_duplicate(connection: Connection, job: Job, origin: Origin) -> None:
    """Record the first of several duplicates in a row."""
    last = select(events.c.kind).where(events.c.job_id == job.id).order_by(events.c.id.desc()).limit(1)
    if connection.execute(last).scalar() != "duplicate":
        record(connection, job, "duplicate", f"the same content again: {origin.name or 'API'}")


def _insert(connection: Connection, origin: Origin, **values: Any) -> Job:
    spool = {"spool_name": origin.name, "spool_claim": origin.claim, "spool_path": origin.path, "batch": origin.batch}
    values |= {"submitter": origin.submitter, "submitter_uid": origin.uid, "created": datetime.now(UTC), **spool}
    return job_of(connection.execute(insert(jobs).values(values).returning(jobs)).mappings().one())
