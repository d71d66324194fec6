"""Another user of the host cannot hold a lock that the daemon needs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyper2kvmd.config import SpoolFolder
from hyper2kvmd.daemon.locks import LOCK, STATE_LOCK
from tests.integration.daemon.conftest import house as house
from tests.support.house import House

STRANGER, SERVICE = 65534, 64321
HOLD = """
import fcntl, os, sys
for path in sys.argv[1:]:
    try:
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        print("no", type(error).__name__, path)
    else:
        print("holds", path)
print("done", flush=True)
sys.stdin.read()
"""
TAKE = """
import sys
from pathlib import Path
from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.locks import Locks
from hyper2kvmd.errors import BrokenInstallation
locks = Locks(DaemonConfig(state_dir=Path("/nowhere")))
try:
    locks.take("spool_dir", Path(sys.argv[1]))
except BrokenInstallation as refusal:
    sys.exit(refusal.code)
print("taken", flush=True)
sys.stdin.read()
"""
pytestmark = pytest.mark.root


@contextmanager
def program(text: str, uid: int, *arguments: Path) -> Iterator[subprocess.Popen[str]]:
    pipe, command = subprocess.PIPE, [sys.executable, "-I", "-c", text, *map(str, arguments)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, user=uid, group=uid) as running:
        try:
            yield running
        finally:
            running.kill()


def said(running: subprocess.Popen[str], last: str) -> list[str]:
    """The lines up to the last one."""
    lines: list[str] = []
    assert running.stdout is not None
    while not lines or lines[-1] not in (last, ""):
        lines.append(running.stdout.readline().strip())
    return lines[:-1]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody can look into."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_stranger_holds_no_lock_of_a_daemon(place: Path) -> None:
    house = House(place)
    house.configure()
    house.start()
    house.stop()
    for folder in (house.spool, place / "state", place / "images"):
        folder.chmod(0o755)
    locks = [*place.rglob(LOCK), place / "state" / STATE_LOCK, place / "state" / "jobs.sqlite3.lock"]
    assert len(locks) == 6, locks
    for lock in locks:
        lock.chmod(0o644)  # as an earlier version may have left it
    house.start()
    house.stop()
    directories = [place, house.spool, place / "state", place / "images"]
    with program(HOLD, STRANGER, *directories, *locks) as stranger:
        lines = said(stranger, "done")
        assert [line for line in lines if "lock" in line and line.startswith("holds")] == []
        assert len([line for line in lines if line.startswith("holds")]) == len(directories)
        try:
            house.start()
        finally:
            house.close()


def test_the_spool_of_root_is_locked_in_a_folder_of_the_service(place: Path) -> None:
    """A lock of the directory itself could be held by everybody who can list it."""
    active = place / SpoolFolder.ACTIVE
    active.mkdir(mode=0o700)
    os.chown(active, SERVICE, SERVICE)
    with program(HOLD, STRANGER, place) as stranger:
        assert said(stranger, "done") == [f"holds {place}"]
        with program(TAKE, SERVICE, place) as first:
            assert said(first, "taken") == []
            assert (active / LOCK).stat().st_mode & 0o777 == 0o600
            with program(TAKE, SERVICE, place) as second:
                assert second.stderr is not None and second.stderr.read().strip() == "already-running"
