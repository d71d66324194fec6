"""A PostgreSQL server of the tests' own, from Debian's package, on a Unix socket in a temporary directory."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER = "postgres"
SETTINGS = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "listen_addresses=", "max_connections=60")
TEMPLATE = "queue_template"


@dataclass
class Postgres:
    root: Path
    programs: Path
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
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def _run(self, program: str, *words: str) -> None:
        """As the user postgres: the server refuses to run as root."""
        command = [str(self.programs / program), *words]
        if os.geteuid() == 0:
            command = ["runuser", "-u", USER, "--", *command]
        quiet = subprocess.DEVNULL
        done = subprocess.run(command, stdout=quiet, stderr=subprocess.PIPE, text=True, cwd="/", check=False)
        assert done.returncode == 0, f"{program}: {done.stderr}"


@contextmanager
def server(root: Path) -> Iterator[Postgres]:
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    root.mkdir(mode=0o755)
    postgres = Postgres(root, programs)
    if os.geteuid() == 0:
        shutil.chown(root, USER, USER)
    postgres._run("initdb", "-D", str(root / "data"), "-A", "trust", "--no-sync", "-E", "UTF8", "-U", USER)
    (root / "data" / "pg_hba.conf").write_text("local all stranger scram-sha-256\nlocal all all trust\n")
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()
