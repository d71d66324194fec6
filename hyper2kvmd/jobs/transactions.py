"""The database of the queue, and its transactions. Every change and its event are one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, OperationalError

from hyper2kvmd.errors import TryLater
from hyper2kvmd.jobs.database import corrupt, open_database


class Transactions:
    """One database. Safe to share between threads.

    Every method may raise TryLater (`database-unavailable`) and BrokenInstallation (`database-corrupt`).
    """

    def __init__(self, address: str) -> None:
        self._engine = open_database(address)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(writes=writes) as connection, connection.begin():
                yield connection
        except OperationalError as error:
            raise TryLater(
                "database-unavailable",
                f"the job database does not respond: {error.orig}",
                hint="Check the space and the mode of its file system",
            ) from error
        except (DataError, IntegrityError):
            raise
        except DatabaseError as error:
            raise corrupt(str(self._engine.url.database), str(error.orig)) from error
