"""The check of the database delays no start, and does not outlive its daemon."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from hyper2kvmd.jobs import sqlite
from hyper2kvmd.jobs.store import Store
from tests.support.house import until

ROWS, ROW_BYTES = 500, 100_000
STARTER = "import pathlib, sys; from hyper2kvmd.jobs.examine import examine; examine(pathlib.Path(sys.argv[1]))"


@pytest.mark.parametrize(("seconds", "whole"), [(0.001, False), (600.0, True)])
def test_a_check_that_takes_long_goes_on_beside_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, whole: bool
) -> None:
    database = tmp_path / "jobs.sqlite3"
    Store(f"sqlite:///{database}").close()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE ballast (content)")
        connection.executemany("INSERT INTO ballast VALUES (?)", [(os.urandom(ROW_BYTES),)] * ROWS)
    monkeypatch.setattr(sqlite, "CHECK_SECONDS", seconds)
    store = Store(f"sqlite:///{database}")
    store.close()
    assert store.checked is whole


def test_a_check_ends_with_the_process_that_asked_for_it(tmp_path: Path) -> None:
    """A pipe that nobody writes to keeps the check busy."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([sys.executable, "-I", "-c", STARTER, pipe]) as starter:
        until(lambda: any(reads(pid, pipe) for pid in processes()), "the check has begun")
        checks = [pid for pid in processes() if reads(pid, pipe)]
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    until(lambda: not any(reads(pid, pipe) for pid in checks), "the check has ended")


def processes() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdigit()]


def reads(process: Path, path: Path) -> bool:
    with suppress(OSError):
        words = (process / "cmdline").read_bytes().split(b"\0")
        return b"hyper2kvmd.jobs.sqlite_tool" in words and os.fsencode(path) in words
    return False
