"""Opens the database, and handles the differences between SQLite and other databases.

A database is created only if there is no file, and checked before it is used. One that is damaged or of a newer program
is refused: an administrator decides what to do with it.
"""

from __future__ import annotations

import os
import pwd
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, SQLAlchemyError

from hyper2kvmd.errors import BrokenInstallation, TryLater

BUSY_SECONDS = 30.0
"""How long a transaction waits for that of another process."""
MIGRATIONS = Path(__file__).with_name("migrations")
CORRECT_IT = "Correct its owner, mode and file system, or set database_url to another database"
REMEDY = "Stop the daemon, then restore the file from a backup, or move it away to begin with an empty queue"


def open_database(address: str) -> Engine:
    """An engine for a database with the current schema.

    Raises BrokenInstallation: `database-url-invalid`, `database-unreadable`, `database-corrupt`,
    `database-newer`, `database-foreign`, `database-incomplete`; TryLater (`database-busy`).
    """
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise BrokenInstallation(
            "database-url-invalid",
            f"database_url {address!r} is not a database address",
            hint="Write it as sqlite:////path/to/file or postgresql+psycopg://user@host/name",
        ) from error
    if url.get_backend_name() != "sqlite":
        return _upgraded(_server(url), url.render_as_string())
    if not url.database or url.database == ":memory:":
        raise BrokenInstallation(
            "database-url-invalid",
            "database_url specifies a database in memory, which would be lost when the daemon stops",
            hint="Write it as sqlite:////path/to/file",
        )
    path = Path(url.database)
    if not os.path.lexists(path):
        _create(url, path)
    return _checked(_sqlite(url), path)


def _server(url: URL) -> Engine:
    try:
        return create_engine(url, pool_pre_ping=True)
    except (ImportError, SQLAlchemyError) as error:
        raise _unreadable(url.render_as_string(), str(error)) from error


def _create(url: URL, path: Path) -> None:
    """Complete the file under another name first, so that a kill leaves no incomplete database behind."""
    if os.path.lexists(path.with_name(path.name + "-journal")):
        raise BrokenInstallation(
            "database-incomplete",
            f"{path} is missing, but its journal is there",
            hint="Put the database back beside its journal, or move the journal away to begin with an empty queue",
        )
    draft = path.with_name(path.name + ".creating")
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        for leftover in (draft, draft.with_name(draft.name + "-journal")):
            leftover.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        _upgraded(_sqlite(url.set(database=str(draft))), str(path), empty=True).dispose()
        draft.with_name(draft.name + "-journal").unlink(missing_ok=True)
        draft.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except PermissionError as error:
        raise _denied(path, error.strerror or str(error)) from error
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is sent explicitly, below
        # TRUNCATE, not WAL: see the WAL-reset bug of 3.7.0 to 3.51.2; EXTRA also syncs the directory.
        for pragma in ("journal_mode=TRUNCATE", "synchronous=EXTRA", "foreign_keys=ON", "cell_size_check=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that changes from reading to writing fails with "locked" at once, whatever the timeout.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _checked(engine: Engine, path: Path) -> Engine:
    if not path.is_file():
        raise _unreadable(path, "not a regular file")
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        raise _denied(path, "this user cannot read and write it")
    try:
        with engine.connect() as connection:
            verdict = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(3)")]
    except DatabaseError as error:
        if _is_busy(error):
            raise _busy(str(path)) from error
        if "unable to open" in str(error.orig):
            raise _unreadable(path, str(error.orig)) from error
        raise corrupt(str(path), str(error.orig)) from error
    if verdict != ["ok"]:
        raise corrupt(str(path), "; ".join(" ".join(line.split()) for line in verdict))
    return _upgraded(engine, str(path))


def _upgraded(engine: Engine, name: str, *, empty: bool = False) -> Engine:
    """Apply the schema steps that are missing, in one transaction."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    try:
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            current = MigrationContext.configure(connection).get_current_revision()
            if current is None and inspect(connection).get_table_names():
                raise BrokenInstallation(
                    "database-foreign",
                    f"{name} is a database of another program",
                    hint="Set database_url to another database",
                )
            if current is None and engine.dialect.name == "sqlite" and not empty:
                raise corrupt(name, "it holds no queue")
            if current is not None and current not in known:
                raise BrokenInstallation(
                    "database-newer",
                    f"{name} was written by a newer hyper2kvmd (schema {current})",
                    hint="Install that version again, or restore the backup made before its installation",
                )
            if current != script.get_current_head():
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
    except SQLAlchemyError as error:
        engine.dispose()
        if isinstance(error, DatabaseError) and _is_busy(error):
            raise _busy(name) from error
        raise _unreadable(name, " ".join(str(getattr(error, "orig", None) or error).split())) from error
    except BrokenInstallation:
        engine.dispose()
        raise
    return engine


def _is_busy(error: DatabaseError) -> bool:
    """Whether SQLite waited in vain for another process's lock (SQLITE_BUSY or SQLITE_LOCKED, in any variant)."""
    return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in (5, 6)


def _busy(name: str) -> TryLater:
    return TryLater(
        "database-busy",
        f"another program has held a lock on the database {name} for {BUSY_SECONDS:.0f} s",
        hint="Let it finish, or end it (`fuser` names it), then try again",
    )


def corrupt(name: str, fact: str) -> BrokenInstallation:
    return BrokenInstallation("database-corrupt", f"the database {name} is damaged: {fact}", hint=REMEDY)


def _denied(path: Path, fact: str) -> BrokenInstallation:
    """This user has no permission: either another user has to run the command, or the permissions are wrong."""
    owner = _owner(path)
    if owner in (None, 0, os.geteuid()):
        return _unreadable(path, fact)
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        return _unreadable(path, fact)
    command = " ".join(map(shlex.quote, [Path(sys.argv[0]).name, *sys.argv[1:]]))
    return _unreadable(path, fact, f"It belongs to {name}. Run `sudo -u {name} {command}`")


def _owner(path: Path) -> int | None:
    """Of the database, or of its directory if this user may not look into it."""
    for place in (path, path.parent):
        with suppress(OSError):
            return place.stat().st_uid
    return None


def _unreadable(name: Path | str, fact: str, hint: str = CORRECT_IT) -> BrokenInstallation:
    return BrokenInstallation("database-unreadable", f"the database {name} cannot be used: {fact}", hint=hint)
