"""A PostgreSQL server of the tests' own, from Debian's package, on a Unix socket in a temporary directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, insert

from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.tables import metadata, queue

USER = "postgres"
SETTINGS = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "listen_addresses=", "max_connections=60")
TEMPLATE = "queue_template"
GERMAN = {"LANGUAGE": "de"}
"""The language of the server's messages: it has no effect with the locale C, but with C.UTF-8."""


@dataclass
class Postgres:
    root: Path
    programs: Path
    environment: dict[str, str] = field(default_factory=dict)
    databases: int = 0

    def address(self, database: str, user: str = USER, password: str = "") -> str:
        login = f"{user}:{password}" if password else user
        return f"postgresql+psycopg://{login}@/{database}?host={self.root}"

    def start(self) -> None:
        settings = " ".join(f"-c {one}" for one in (*SETTINGS, f"unix_socket_directories={self.root}"))
        log = self.root / "log"
        self._run("pg_ctl", "start", "-w", "-t", "90", "-D", str(self.root / "data"), "-l", str(log), "-o", settings)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-t", "90", "-m", "immediate", "-D", str(self.root / "data"))

    def sql(self, statement: str, database: str = "postgres") -> None:
        self._run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(self.root), "-d", database, "-c", statement)

    def new_database(self, template: str = "template0") -> str:
        self.databases += 1
        name = f"queue{self.databases}"
        with psycopg.connect(f"host={self.root} user={USER} dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return name

    def _run(self, program: str, *words: str) -> None:
        """As the user postgres: the server refuses to run as root."""
        command = [str(self.programs / program), *words]
        if os.geteuid() == 0:
            command = ["runuser", "-u", USER, "--", *command]
        quiet, environment = subprocess.DEVNULL, {**os.environ, **self.environment}
        done = subprocess.run(
            command, stdout=quiet, stderr=subprocess.PIPE, text=True, cwd="/", env=environment, check=False
        )
        assert done.returncode == 0, f"{program}: {done.stderr}"


@contextmanager
def server(root: Path, environment: dict[str, str] | None = None) -> Iterator[Postgres]:
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    root.mkdir(mode=0o755)
    postgres = Postgres(root, programs, environment or {})
    if os.geteuid() == 0:
        shutil.chown(root, USER, USER)
    postgres._run(
        "initdb", "-D", str(root / "data"), "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8", "-U", USER
    )
    (root / "data" / "pg_hba.conf").write_text("local all stranger scram-sha-256\nlocal all all trust\n")
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()


@contextmanager
def short_folder() -> Iterator[Path]:
    """The path of a socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="h2k-pg-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """With an empty queue as the template of databases."""
    with short_folder() as folder, server(folder / "server") as running:
        running.sql(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
        Store(running.address(TEMPLATE)).close()
        yield running


@pytest.fixture(scope="session")
def server_queue(postgres: Postgres) -> Iterator[tuple[str, Engine]]:
    """The address of a database that `empty` makes that of an empty queue again: a new one for each test takes long."""
    address = postgres.address(postgres.new_database(TEMPLATE))
    engine = create_engine(address)
    yield address, engine
    engine.dispose()


def empty(engine: Engine) -> None:
    """Delete all rows but the one that a new queue has, and begin all numbers anew."""
    with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
        connection.execute(insert(queue).values(id=1, paused=False, identity=str(uuid4())))
        restart = "SELECT setval(oid, 1, false) FROM pg_class WHERE relkind = 'S'"
        connection.exec_driver_sql(restart)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.root)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty queue in each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.sqlite3"
    address, engine = request.getfixturevalue("server_queue")
    empty(engine)
    return str(address)
