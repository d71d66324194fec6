"""Opens the database, and handles the differences between SQLite and other databases.

A database is created only if there is no file, and checked before it is used. One that is damaged or of a newer program
is refused: an administrator decides what to do with it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy import inspect as inspect_database
from sqlalchemy.exc import ArgumentError, DatabaseError, SQLAlchemyError

from hyper2kvmd.errors import BrokenInstallation, Failure
from hyper2kvmd.jobs import postgres, sqlite
from hyper2kvmd.jobs.refusals import corrupt, denied, unreadable
from hyper2kvmd.jobs.schema import apply_steps, current_step, known_steps, newest_step

WASTE = 1 << 26
"""Bytes of unused pages from which the file is made smaller after a change of the schema."""


class Opened(NamedTuple):
    engine: Engine
    checked: bool
    """False for a file whose check takes longer than a start may take."""


BeforeSteps = Callable[[Path], object]
"""Called with the file, before steps are applied to a database that is in use."""


def no_backup(_path: Path) -> None:
    """For a database without a configuration."""


def open_database(address: str, before_steps: BeforeSteps = no_backup) -> Opened:
    """A database with the current schema.

    Raises BrokenInstallation: `database-url-invalid`, `database-unreadable`, `database-corrupt`, `database-login`,
    `database-newer`, `database-foreign`, `database-incomplete`; TryLater: `database-busy`, `database-unavailable`.
    """
    url = url_of(address)
    path = sqlite_path(url)
    if path is None:
        return Opened(_upgraded(_server(url), url.render_as_string()), checked=True)
    _complete_replacement(path)
    if not os.path.lexists(path):
        create(url, path)
    engine = sqlite.engine_of(url)
    checked = sqlite.checked(engine, path)
    return Opened(_upgraded(engine, str(path), lambda: before_steps(path)), checked)


def _complete_replacement(path: Path) -> None:
    try:
        sqlite.complete_replacement(path)
    except OSError as error:
        raise denied(path, error.strerror or str(error)) from error


def url_of(address: str) -> URL:
    """Raises BrokenInstallation (`database-url-invalid`)."""
    try:
        return make_url(address)
    except ArgumentError as error:
        raise BrokenInstallation(
            "database-url-invalid",
            f"database_url {address!r} is not a database address",
            hint="Write it as sqlite:////path/to/file or postgresql+psycopg://user@host/name",
        ) from error


def sqlite_path(url: URL) -> Path | None:
    """The file of an SQLite database; None for another one. Raises BrokenInstallation (`database-url-invalid`)."""
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise BrokenInstallation(
            "database-url-invalid",
            "database_url specifies a database in memory, which would be lost when the daemon stops",
            hint="Write it as sqlite:////path/to/file",
        )
    return Path(url.database)


def _server(url: URL) -> Engine:
    try:
        return create_engine(url, pool_pre_ping=True)
    except (ImportError, SQLAlchemyError) as error:
        raise unreadable(url.render_as_string(), str(error)) from error


def create(url: URL, path: Path) -> None:
    """Raises BrokenInstallation (`database-incomplete`, `database-unreadable`)."""
    sqlite.require_new(path)
    try:
        draft = sqlite.draft_of(path)
        _upgraded(sqlite.engine_of(url.set(database=str(draft))), str(path), empty=True).dispose()
        sqlite.put_in_place(draft, path)
    except PermissionError as error:
        raise denied(path, error.strerror or str(error)) from error
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from error


def _upgraded(
    engine: Engine, name: str, before_steps: Callable[[], object] = lambda: None, *, empty: bool = False
) -> Engine:
    """Apply the schema steps that are missing, in one transaction."""
    try:
        with engine.connect() as connection:
            current = current_step(connection)
            _require_ours(connection, name, current, empty=empty)
        if current != newest_step():
            if current is not None:
                before_steps()
            with engine.connect().execution_options(writes=True) as connection, connection.begin():
                apply_steps(connection)
            _shrink(engine)
    except SQLAlchemyError as error:
        engine.dispose()
        raise explained(engine, error) from error
    except Failure:
        engine.dispose()
        raise
    return engine


def _require_ours(connection: Connection, name: str, current: str | None, *, empty: bool) -> None:
    if current is None and inspect_database(connection).get_table_names():
        raise BrokenInstallation(
            "database-foreign", f"{name} is a database of another program", hint="Set database_url to another database"
        )
    if current is None and connection.dialect.name == "sqlite" and not empty:
        raise corrupt(Path(name), "it holds no queue")
    if current is not None and current not in known_steps():
        raise BrokenInstallation(
            "database-newer",
            f"{name} was written by a newer hyper2kvmd (schema {current})",
            hint="Install that version again, or restore the backup made before its installation",
        )


def _shrink(engine: Engine) -> None:
    """Give the space of unused pages back, if it is much. It needs as much space as what remains."""
    if engine.dialect.name != "sqlite":
        return
    with engine.connect() as connection:
        pages, unused, size = (
            int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
            for name in ("page_count", "freelist_count", "page_size")
        )
        if unused * size < WASTE or unused < pages // 4:
            return
        connection.rollback()
        raw: Any = connection.connection.driver_connection
        with suppress(sqlite3.OperationalError):  # no space: the database is as good without
            raw.execute("VACUUM")


def explained(engine: Engine, error: SQLAlchemyError, *, in_use: bool = False) -> Failure:
    """What an error of the database means for its user."""
    if not isinstance(error, DatabaseError):
        return unreadable(_name(engine), " ".join(str(getattr(error, "orig", None) or error).split()))
    if engine.dialect.name == "sqlite":
        return sqlite.explained(Path(engine.url.database or ""), error, in_use=in_use)
    return postgres.explained(engine, error)


def _name(engine: Engine) -> str:
    return str(engine.url.database) if engine.dialect.name == "sqlite" else engine.url.render_as_string()
