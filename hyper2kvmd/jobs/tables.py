"""The tables of the queue after the newest migration, and the conversion of rows to frozen types."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    func,
    select,
    text,
)
from sqlalchemy.engine import RowMapping

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.jobs import NOBODY_AT_ALL, WARNED, Job, JobEvent, Problem

ACTIVE_STATES = "state IN ('queued', 'held', 'running')"
MISPLACED = (
    "spool_path NOT LIKE CASE state WHEN 'succeeded' THEN 'done/%' WHEN 'failed' THEN 'failed/%'"
    " WHEN 'cancelled' THEN 'failed/%' WHEN 'rejected' THEN 'rejected/%' END"
)
"""The spool file is not in the folder of the job's state. Written out: the index serves identical text only."""
notes_adapter: TypeAdapter[tuple[Concern, ...]] = TypeAdapter(tuple[Concern, ...])
problems_adapter: TypeAdapter[tuple[Problem, ...]] = TypeAdapter(tuple[Problem, ...])


class Instant(TypeDecorator[datetime]):
    """A point in time: aware and in UTC in Python, whatever the database stores."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("vm_name", String(255), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    Column("cancelling", Boolean, nullable=False, default=False),
    Column("migration", Text),
    Column("content_key", String(64), nullable=False),
    Column("spool_name", String(255)),
    Column("spool_claim", String(255), unique=True),
    Column("spool_path", String(511)),
    Column("submitter", String(255), nullable=False, default=""),
    Column("submitter_uid", BigInteger, nullable=False, server_default=text(str(NOBODY_AT_ALL))),
    Column("stage", String(16)),
    Column("progress", Float, nullable=False, default=0.0),
    Column("note", Text, nullable=False, default=""),
    Column("problems", Text, nullable=False, default="[]"),
    Column("notes", Text, nullable=False, server_default="[]"),
    Column("batch", String(255), index=True),
    Column("reserved_bytes", BigInteger, nullable=False, default=0),
    Column("created", Instant, nullable=False),
    Column("not_before", Instant),
    Column("started", Instant),
    Column("finished", Instant),
    Index("jobs_to_claim", "state", "priority", "id"),
    Index("jobs_of_submitter", "submitter", "state", "id"),
    Index("jobs_misplaced", "id", sqlite_where=text(MISPLACED), postgresql_where=text(MISPLACED)),
    Index(
        "jobs_active_content",
        "content_key",
        unique=True,
        sqlite_where=text(ACTIVE_STATES),
        postgresql_where=text(ACTIVE_STATES),
    ),
    sqlite_autoincrement=True,
)
"""`id` is never used twice: working folders and outputs carry it. `failures` counts failed tries, while `attempt`
counts every claim."""

stages = Table(
    "stages",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("stage", String(16), primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("product", Text, nullable=False),
)

conversions = Table(
    "conversions",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("data_bytes", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
)
"""Conversions that one attempt did from beginning to end."""

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("at", Instant, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("message", Text, nullable=False, default=""),
    sqlite_autoincrement=True,
)

cards = Table(
    "cards",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("mac", String(17), primary_key=True),
    Column("place", String(255), nullable=False),
    Index("ix_cards_mac_place_job_id", "mac", "place", "job_id"),
)
"""Network cards of the machines of jobs that are active or have succeeded.

`place` is the target, with its address if it has one.
"""

queue = Table(
    "queue",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("paused", Boolean, nullable=False),
)
"""One row: the operator's setting for the queue as a whole."""


WARNINGS = (
    select(func.count(events.c.message.distinct()))
    .where(events.c.job_id == jobs.c.id, events.c.kind == WARNED)
    .scalar_subquery()
    .label("warnings")
)
"""For queries of jobs that are to be shown."""
APART = ("migration", "problems", "notes", "warnings")
"""Fields of a job that are no column, or whose column has JSON."""


def job_of(row: RowMapping) -> Job:
    migration = row["migration"]
    return Job(
        **{name: row[name] for name in Job.model_fields if name not in APART},
        migration=None if migration is None else Migration.model_validate_json(migration),
        problems=problems_adapter.validate_json(row["problems"]),
        notes=notes_adapter.validate_json(row["notes"]),
        warnings=row.get(WARNINGS.name, 0),
    )


def event_of(row: RowMapping) -> JobEvent:
    return JobEvent(**{name: row[name] for name in JobEvent.model_fields})
