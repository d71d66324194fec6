"""The lock of a daemon on its database: a file beside SQLite's, an advisory lock of PostgreSQL's server."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from hyper2kvmd.errors import BrokenInstallation
from hyper2kvmd.file_lock import FileLock, Held
from hyper2kvmd.jobs.database import explained

KEY = 0x68326B766D64
"""Of the advisory lock, with the schema as its second part: `h2kvmd`."""
LOCK = text("SELECT pg_try_advisory_lock(:key # hashtextextended(current_schema(), 0))")
HOLDER = text(
    "SELECT activity.application_name FROM pg_locks AS locks JOIN pg_stat_activity AS activity USING (pid) "
    "WHERE locks.locktype = 'advisory' AND activity.datname = current_database() AND locks.granted "
    "AND ((locks.classid::bigint << 32) | locks.objid::bigint) = :key # hashtextextended(current_schema(), 0)"
)


class DatabaseLock:
    """Nothing is held before `take`."""

    def __init__(self, address: str, holder: str) -> None:
        """`holder` describes this daemon to one that is refused."""
        self._url = make_url(address)
        self._holder = holder
        self._file: FileLock | None = None
        self._connection: Connection | None = None

    def take(self) -> None:
        """Hold the lock; take it again if it was lost, as by a restart of the server.

        Raises BrokenInstallation (`already-running`, `database-login`), TryLater (`database-unavailable`), OSError.
        """
        if self._url.get_backend_name() == "sqlite":
            self._take_file(Path(f"{self._url.database}.lock"))
        elif not self._connected():
            self._take_on_server()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._disconnect()

    def _take_file(self, path: Path) -> None:
        if self._file is not None:
            if self._file.valid:
                return
            self._file.close()
            self._file = None
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        try:
            self._file = FileLock(path, self._holder)
        except Held as found:
            raise self._refused(str(found)) from found

    def _connected(self) -> bool:
        if self._connection is None:
            return False
        try:
            self._connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            self._disconnect()
            return False
        return True

    def _take_on_server(self) -> None:
        engine = create_engine(self._url, isolation_level="AUTOCOMMIT")
        try:
            self._connection = engine.connect()
            name = {"name": f"hyper2kvmd {self._holder}"[:63]}
            self._connection.execute(text("SELECT set_config('application_name', :name, false)"), name)
            if self._connection.execute(LOCK, {"key": KEY}).scalar_one():
                return
            found = self._connection.execute(HOLDER, {"key": KEY}).scalars().first()
        except SQLAlchemyError as error:
            self._disconnect()
            raise explained(engine, error) from error
        self._disconnect()
        raise self._refused(str(found or "an unknown process"))

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.invalidate()
            connection.engine.dispose()

    def _refused(self, found: str) -> BrokenInstallation:
        return BrokenInstallation(
            "already-running",
            f"database_url {self._url.render_as_string()}: another hyper2kvmd uses it ({found})",
            hint="Stop that daemon, or give this one another database_url",
        )
