"""The file of an SQLite database: how it is created, opened, and checked before it is used."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError

from hyper2kvmd.errors import BrokenInstallation, Failure
from hyper2kvmd.jobs.examine import examine
from hyper2kvmd.jobs.refusals import BUSY_SECONDS, busy, corrupt, denied, missing, not_on_disk, unavailable, unreadable
from hyper2kvmd.jobs.sqlite_tool import DAMAGE, make_durable, primary

PRAGMAS = (
    "journal_mode=TRUNCATE",  # not WAL: see the WAL-reset bug of 3.7.0 to 3.51.2
    "synchronous=EXTRA",  # also syncs the directory
    "foreign_keys=ON",
    "cell_size_check=ON",
    "cache_size=-256",  # KiB for each connection: the page cache of the kernel has the file anyway
    # Pages: a smaller transaction flushes its journal once. A multiple of 256 would be taken for OFF.
    "cache_spill=2000",
)
CHECK_SECONDS = 0.5
"""How long a start waits for the check of the file. A check that takes longer goes on beside the daemon."""
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
FAULTS = (
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
)
"""Of the file system."""


def engine_of(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is sent explicitly, below
        connection.text_factory = _text
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that changes from reading to writing fails with "locked" at once, whatever the timeout.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _text(stored: bytes) -> str:
    """A damaged text makes its row unreadable, and no other one."""
    return stored.decode(errors="replace")


def require_new(path: Path) -> None:
    """Refuse to create a database where the journal of another one lies."""
    if os.path.lexists(journal_of(path)):
        raise BrokenInstallation(
            "database-incomplete",
            f"{path} is missing, but its journal is there",
            hint="Put the database back beside its journal, or move the journal away to begin with an empty queue",
        )


def draft_of(path: Path) -> Path:
    """An empty file in which the database is completed: a kill then leaves no incomplete one. Raises OSError."""
    draft = path.with_name(f"{path.name}.creating")
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    remove(draft)
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return draft


def put_in_place(draft: Path, path: Path) -> None:
    """Raises OSError."""
    journal_of(draft).unlink(missing_ok=True)
    draft.rename(path)
    make_durable(path.parent)


def replace_with(draft: Path, path: Path) -> None:
    """Put a complete database in the place of the file, whose journal must not be applied to it. Raises OSError.

    If this is interrupted, nothing has changed, or `complete_replacement` completes it at the next start.
    """
    journal_of(draft).unlink(missing_ok=True)
    draft.rename(_replacement(path))
    make_durable(path.parent)
    complete_replacement(path)


def complete_replacement(path: Path) -> None:
    """Do what an interrupted `replace_with` left to do. Raises OSError."""
    if os.path.lexists(_replacement(path)):
        journal_of(path).unlink(missing_ok=True)
        make_durable(path.parent)
        put_in_place(_replacement(path), path)


def _replacement(path: Path) -> Path:
    return path.with_name(f"{path.name}.replacement")


def journal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


def remove(path: Path) -> None:
    """The file with its journal. Raises OSError."""
    for leftover in (path, journal_of(path)):
        leftover.unlink(missing_ok=True)


def require_usable(path: Path) -> None:
    """Raises BrokenInstallation (`database-unreadable`), TryLater (`database-unavailable`)."""
    if not path.exists():
        raise missing(path)
    if not path.is_file():
        raise unreadable(path, "not a regular file")
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise unavailable(path, "its file system is read-only")
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        raise denied(path, "this user cannot read and write it")
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        raise denied(path, "this user cannot create its journal beside it")


def checked(engine: Engine, path: Path) -> bool:
    """Whether the whole file was checked within CHECK_SECONDS.

    Raises BrokenInstallation: `database-unreadable`, `database-corrupt`; TryLater: `database-busy`,
    `database-unavailable`.
    """
    require_usable(path)
    try:
        with engine.connect() as connection:
            found = _quick_check(connection)
    except DatabaseError as error:
        engine.dispose()
        raise explained(path, error) from error
    if found:
        engine.dispose()
        raise confirmed(path, "; ".join(found))
    return found is not None


def _quick_check(connection: Connection) -> list[str] | None:
    """What is wrong with the file; None if the check took too long. Raises DatabaseError."""
    raw: Any = connection.connection.dbapi_connection
    connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").all()
    clock = threading.Timer(CHECK_SECONDS, raw.interrupt)  # one instruction of SQLite checks a whole table
    clock.start()
    try:
        rows = [" ".join(str(row[0]).split()) for row in connection.exec_driver_sql("PRAGMA quick_check(3)")]
    except DatabaseError as error:
        if primary(error.orig) != sqlite3.SQLITE_INTERRUPT:
            raise
        return None
    finally:
        clock.cancel()
        clock.join()
    return [] if rows == ["ok"] else rows


def explained(path: Path, error: DatabaseError, *, in_use: bool = False) -> Failure:
    """What an error of SQLite means: damage only if the file on the disk has it.

    `in_use`: statements were executed before. An error can then be a result of one before it, such as a transaction
    that SQLite rolled back by itself.
    """
    error = _cause(error)
    code, fact = primary(error.orig), " ".join(str(error.orig).split())
    if code in BUSY:
        return busy(str(path))
    if code in DAMAGE:
        return confirmed(path, fact)
    return unavailable(path, fact) if in_use or code in FAULTS else unreadable(path, fact)


def _cause(error: DatabaseError) -> DatabaseError:
    """A write that fails ends its savepoints, so that the rollback to one fails as well: the first error counts."""
    if "no such savepoint" not in str(error.orig):
        return error
    context = error.__context__
    while context is not None:
        error = context if isinstance(context, DatabaseError) else error
        context = context.__context__
    return error


def confirmed(path: Path, fact: str) -> Failure:
    """Damage that was read: of the file, if it is still there when the file is read from the disk."""
    found = examine(path)
    if found.damage:
        return corrupt(path, "; ".join(found.damage))
    return unavailable(path, found.fault) if found.fault else not_on_disk(path, fact)
