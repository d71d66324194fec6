"""Puts what is left of a lost database into a new one: finished jobs, and the numbers that were given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from hyper2kvmd.jobs.candidates import sources_of
from hyper2kvmd.jobs.changes import record_at
from hyper2kvmd.jobs.submissions import Origin, columns_of_origin
from hyper2kvmd.jobs.tables import jobs, problems_adapter, queue
from hyper2kvmd.jobs.transactions import Transactions
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Problem, Stage, State

FOUND = "found in the spool after the database was lost"


@dataclass(frozen=True)
class EndedJob:
    """A job as the results in the spool describe it."""

    number: int
    vm_name: str
    state: State
    origin: Origin
    problems: tuple[Problem, ...] = ()
    migration: Migration | None = None
    content_key: str = ""
    attempts: int = 0
    stage: Stage | None = None
    warnings: int = 0
    note: str = ""
    created: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None


def has_numbers(store: Transactions) -> bool:
    """Whether any job got a number in this database, or numbers were left out."""
    with store.transaction() as connection:
        return _last_number(connection) > 0


def take_over(store: Transactions, ended: Iterable[EndedJob], number: int, identity: str | None) -> int:
    """Enter these jobs, let the next one get a higher number than this, and be the database of that queue.

    All of it or nothing. Returns how many jobs were entered: two files may describe the same one.
    """
    with store.transaction(writes=True) as connection:
        entered = sum(_entered(connection, one) for one in ended)
        continue_numbers(connection, number)
        if identity is not None:
            connection.execute(update(queue).values(identity=identity))
        return entered


def _entered(connection: Connection, one: EndedJob) -> bool:
    try:
        with connection.begin_nested():
            connection.execute(insert(jobs).values(_columns(one)))
    except IntegrityError:
        return False
    record_at(connection, one.number, one.attempts, one.state.value, FOUND)
    return True


def _columns(one: EndedJob) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        **columns_of_origin(one.origin),
        "id": one.number,
        "state": one.state,
        "vm_name": one.vm_name,
        "priority": one.migration.priority if one.migration else 0,
        "attempt": one.attempts,
        "migration": one.migration.model_dump_json() if one.migration else None,
        "content_key": one.content_key,
        "stage": one.stage,
        "note": one.note,
        "problems": problems_adapter.dump_json(one.problems).decode(),
        "warnings": one.warnings,
        "sources": sources_of(one.migration) if one.migration else "[]",
        "created": one.created or one.finished or now,
        "started": one.started,
        "finished": one.finished or now,
    }


def _last_number(connection: Connection) -> int:
    if connection.dialect.name == "sqlite":
        return int(connection.execute(text("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'")).scalar() or 0)
    sequence = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM jobs_id_seq"
    return int(connection.execute(text(sequence)).scalar_one())


def continue_numbers(connection: Connection, number: int) -> None:
    """Let the next job get a higher number than this."""
    highest = connection.execute(select(jobs.c.id).order_by(jobs.c.id.desc()).limit(1)).scalar() or 0
    number = max(number, highest, _last_number(connection))
    if number == 0:
        return
    if connection.dialect.name != "sqlite":
        connection.execute(text("SELECT setval('jobs_id_seq', :number)"), {"number": number})
        return
    connection.execute(text("DELETE FROM sqlite_sequence WHERE name = 'jobs'"))
    row = text("INSERT INTO sqlite_sequence (name, seq) VALUES ('jobs', :number)")
    connection.execute(row, {"number": number})
