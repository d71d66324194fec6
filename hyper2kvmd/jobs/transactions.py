"""The database of the queue, and its transactions. Every change and its event are one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple, TypeVar, cast

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError

from hyper2kvmd.jobs.database import BeforeSteps, explained, no_backup, open_database

REMEMBERED_SECONDS = 30.0
"""How long an answer is used without a change by this process: `h2kvmctl gc` changes the database as well."""
T = TypeVar("T")
S = TypeVar("S", bound="Transactions")


class Transactions:
    """One database. Safe to share between threads.

    Every method may raise TryLater (`database-unavailable`) and BrokenInstallation (`database-corrupt`).
    """

    def __init__(self, address: str, before_steps: BeforeSteps = no_backup) -> None:
        self._engine, self.checked = open_database(address, before_steps)
        self._changes = 0
        """How often this process has changed the database."""
        self._remembered: dict[str, _Answer] = {}

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(writes=writes) as connection, connection.begin():
                rows = _changed_rows(connection)
                yield connection
                changed = writes and (rows is None or _changed_rows(connection) != rows)
        except (DataError, IntegrityError):
            raise
        except DatabaseError as error:
            self._changes += writes  # it may be on record: an error can hide that
            self._engine.dispose()  # new connections read the file again
            raise explained(self._engine, error, in_use=True) from error
        if changed:
            self._changes += 1

    def remember(self, name: str, ask: Callable[[], T]) -> T:
        """The answer to a question of that name: the last one, unless it may have changed."""
        known = self._remembered.get(name)
        if known is not None and known.changes == self._changes and time.monotonic() < known.until:
            return cast(T, known.value)
        changes = self._changes
        value = ask()
        self._remembered[name] = _Answer(value, changes, time.monotonic() + REMEMBERED_SECONDS)
        return value


class _Answer(NamedTuple):
    value: Any
    changes: int
    until: float


def _changed_rows(connection: Connection) -> int | None:
    """Rows that SQLite has changed by this connection; None for another database."""
    return getattr(connection.connection.dbapi_connection, "total_changes", None)


def remembered(question: Callable[[S], T]) -> Callable[[S], T]:
    """For a question that the daemon asks each second."""

    @wraps(question)
    def ask(store: S) -> T:
        return store.remember(question.__name__, lambda: question(store))

    return ask
