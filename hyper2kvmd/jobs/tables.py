"""The tables of the queue after the newest migration, and the conversion of rows to frozen types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
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
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    select,
    text,
)
from sqlalchemy.engine import RowMapping

from hyper2kvmd.jobs.rows import UNKNOWN_TIME, job_from
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.jobs import NOBODY_AT_ALL, Job, JobEvent, Problem, State, WaitingFor

ACTIVE_STATES = "state IN ('queued', 'held', 'running')"
MISPLACED = (
    "spool_path NOT LIKE CASE state WHEN 'succeeded' THEN 'done/%' WHEN 'failed' THEN 'failed/%'"
    " WHEN 'cancelled' THEN 'failed/%' WHEN 'rejected' THEN 'rejected/%' END"
)
"""The spool file is not in the folder of the job's state. Written out: the index serves identical text only."""
PUT_AWAY = f"({MISPLACED}) IS NOT TRUE"
"""It is there, or there is none."""
RETRIED = "retried/"
"""Before the path of a spool file that has to go back to active/, because a job of it was retried."""
RETRIED_FILES = "spool_path LIKE 'retried/%'"
WARNED_JOBS = "warnings > 0"
ENDED_IN_PUBLISH = "state IN ('failed', 'cancelled') AND stage = 'publish'"
DATED = (WaitingFor.SPACE, WaitingFor.WINDOW, WaitingFor.TIME, WaitingFor.RETRY)
"""Reasons that end at the job's `not_before`."""
INSIDE = (WaitingFor.SLOT, WaitingFor.SOURCE)
"""Reasons that do not count while the queue is paused."""
notes_adapter: TypeAdapter[tuple[Concern, ...]] = TypeAdapter(tuple[Concern, ...])
problems_adapter: TypeAdapter[tuple[Problem, ...]] = TypeAdapter(tuple[Problem, ...])
JSON_COLUMNS: Mapping[str, Callable[[str], Any]] = {
    "migration": lambda text: Migration.model_validate_json(text),
    "problems": lambda text: problems_adapter.validate_json(text),
    "notes": lambda text: notes_adapter.validate_json(text),
}


class Instant(TypeDecorator[datetime]):
    """A point in time: aware and in UTC in Python, whatever the database stores."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        """Of a text that is no time, UNKNOWN_TIME."""
        process = super().result_processor(dialect, coltype)

        def read(value: Any) -> datetime | None:
            try:
                moment: datetime | None = process(value) if process else value
            except (TypeError, ValueError):
                return UNKNOWN_TIME
            return moment

        return read

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
    Column("spool_group", String(255), index=True),
    Column("batch_id", Integer),
    Column("warnings", Integer, nullable=False, server_default="0"),
    Column("waiting_for", String(16)),
    Column("sources", Text, nullable=False, server_default="[]"),
    Column("reserved_bytes", BigInteger, nullable=False, default=0),
    Column("created", Instant, nullable=False),
    Column("not_before", Instant),
    Column("delay_until", Float),
    Column("delay_seconds", Float),
    Column("delay_boot", String(36)),
    Column("deaths", Integer, nullable=False, server_default="0"),
    Column("started", Instant),
    Column("finished", Instant),
    Index("jobs_to_claim", "state", text("priority DESC"), "id", "not_before", "waiting_for", "delay_until"),
    Index("jobs_by_state", "state", "id", "finished", "warnings"),
    Index("jobs_by_end", "state", "finished", "id"),
    Index("jobs_by_finish", "finished", "id"),
    Index("jobs_by_name", "vm_name", "id"),
    Index("jobs_of_batch", "batch_id", "state", "finished", "warnings"),
    Index("jobs_of_uid", "submitter_uid", "id"),
    Index("jobs_of_uid_by_state", "submitter_uid", "state", "id", "finished", "warnings"),
    Index("jobs_with_warnings", "id", sqlite_where=text(WARNED_JOBS)),
    Index("jobs_of_submitter", "submitter", "state", "id"),
    Index("jobs_retried", "id", sqlite_where=text(RETRIED_FILES)),
    Index("jobs_misplaced", "id", sqlite_where=text(MISPLACED)),
    Index("jobs_ended_in_publish", "stage", "finished", sqlite_where=text(ENDED_IN_PUBLISH)),
    Index(
        "jobs_active_content",
        "content_key",
        unique=True,
        sqlite_where=text(ACTIVE_STATES),
    ),
    sqlite_autoincrement=True,
)
"""`id` is never used twice: working folders and outputs carry it. `failures` counts failed tries, while `attempt`
counts every claim. `waiting_for` is what a waiting job waits for besides a slot and the end of a pause. `sources` has
the directories of the job's sources, as JSON.

A delay ends at the uptime `delay_until` of that boot, whatever the wall clock shows; `not_before` is then for people
only. `deaths` counts the daemons that died while the job ran, since it last finished a stage.

`spool_group` is the permanent name of the spool file, if that describes several machines: the same for all their jobs.
"""

batches = Table(
    "batches",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(255), nullable=False),
    Column("submitter", String(255), nullable=False),
    Column("submitter_uid", BigInteger, nullable=False),
    Column("created", Instant, nullable=False),
    Index("batches_of_submitter", "submitter_uid", "name", "id"),
    Index("batches_by_name", "name", "id"),
    sqlite_autoincrement=True,
)

work = Table(
    "work",
    metadata,
    Column("hour", Instant, primary_key=True),
    Column("bytes_read", BigInteger, nullable=False, default=0),
    Column("bytes_written", BigInteger, nullable=False, default=0),
    Column("succeeded", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
)
"""What the daemon did in each hour."""

dependencies = Table(
    "dependencies",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("needs", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True),
)
"""`job_id` starts when `needs` has succeeded."""

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

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("destination", String(63), primary_key=True),
    Column("occasion", String(16), primary_key=True),
)
"""Which notifications the destinations of the configuration get."""

notifications = Table(
    "notifications",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("destination", String(63), nullable=False),
    Column("occasion", String(16), nullable=False),
    Column("job_id", Integer),
    Column("created", Instant, nullable=False),
    Column("message", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("tries", Integer, nullable=False, default=0),
    Column("next_try", Instant, nullable=False),
    Column("last_try", Instant),
    Column("last_error", Text, nullable=False, default=""),
    Index("notifications_to_send", "state", "destination", "next_try"),
    Index("notifications_of_job", "job_id", "occasion", "created"),
    sqlite_autoincrement=True,
)
"""The outbox: filled together with the events, and emptied by the daemon. `job_id` may be that of a forgotten job."""

moves = Table(
    "moves",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("source", LargeBinary, nullable=False),
    Column("target", LargeBinary),
    Column("job_id", Integer),
    Column("ending", String(255), nullable=False, server_default=""),
    sqlite_autoincrement=True,
)
"""Moves of spool files that are not completed. The paths are bytes: a submitter's file name may be no UTF-8."""

queue = Table(
    "queue",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("paused", Boolean, nullable=False),
    Column("clock", Text),
    Column("identity", String(36), nullable=False, server_default=""),
)
"""One row: the operator's setting for the queue as a whole, the last look at the clocks, as JSON, and the identity that
its directories are marked with."""


SHOWN = (
    select(batches.c.name).where(batches.c.id == jobs.c.batch_id).scalar_subquery().label("batch"),
    select(queue.c.paused).scalar_subquery().label("paused"),
)
"""For queries of jobs that are to be shown, besides the columns of `jobs`."""
APART = ("migration", "problems", "notes", "batch", "waiting_for")
"""Fields of a job that are no column, or whose column is converted."""


def job_of(row: RowMapping) -> Job:
    """Also of a row that cannot be read as a whole."""
    read = {name: _parsed(parse, row[name]) for name, parse in JSON_COLUMNS.items()}
    return job_from(
        {name: row[name] for name in Job.model_fields if name not in APART}
        | {name: value for name, value in read.items() if value is not None}
        | {"batch": row.get("batch"), "waiting_for": _waiting_for(row, datetime.now(UTC))},
        tuple(name for name, value in read.items() if value is None and row[name] is not None),
    )


def migration_of(text: str | None) -> Migration | None:
    """None if this version cannot read it."""
    migration: Migration | None = _parsed(JSON_COLUMNS["migration"], text)
    return migration


def _parsed(parse: Callable[[str], Any], text: str | None) -> Any:
    """None for a text that this version cannot read."""
    try:
        return None if text is None else parse(text)
    except ValueError:
        return None


def _waiting_for(row: RowMapping, now: datetime) -> WaitingFor | None:
    """The first of several reasons: what the queue cannot change itself, then the pause, then the slots."""
    if row["state"] not in (State.QUEUED, State.HELD):
        return None
    reason = WaitingFor.SLOT
    with suppress(ValueError):  # of a newer version
        reason = WaitingFor(row["waiting_for"] or WaitingFor.SLOT)
    if row["state"] == State.HELD:
        return reason if reason in (WaitingFor.AFTER, WaitingFor.REMEDY) else WaitingFor.OPERATOR
    if reason in DATED and (row["not_before"] is None or row["not_before"] <= now):
        reason = WaitingFor.SLOT
    return WaitingFor.PAUSE if reason in INSIDE and row.get("paused") else reason


def event_of(row: RowMapping) -> JobEvent:
    return JobEvent(**{name: row[name] for name in JobEvent.model_fields})
