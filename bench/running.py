"""A daemon with jobs on record, for a measurement."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.history import fill
from bench.measure import in_a_child
from tests.support.house import House, notify_socket, until


@contextmanager
def house(number: int = 0, **keys: Any) -> Iterator[House]:
    """Folders and a configuration, and a database with so many finished jobs if any. No daemon is started."""
    with tempfile.TemporaryDirectory(prefix="h2k-bench-", dir="/var/tmp") as name:
        made = House(Path(name))
        made.configure(**keys)
        if number:
            database_of(made).parent.mkdir()
            in_a_child(lambda: fill(database_of(made), number))
        try:
            yield made
        finally:
            made.close()


@contextmanager
def daemon(number: int = 0, **keys: Any) -> Iterator[House]:
    """The same with a daemon that has made its first backup."""
    with house(number, **keys) as made:
        made.start()
        settle(made)
        yield made
        made.stop()


def database_of(house: House) -> Path:
    return house.root / "state" / "jobs.sqlite3"


def settle(house: House) -> None:
    """Wait until the daemon has checked its database and backed it up, as it does in the background of a start."""
    until(lambda: "the database was backed up" in house.log, "the first backup")


def start_seconds(house: House, *, cold: bool) -> float:
    """From the start of the process until it is ready, as systemd is told."""
    if cold:
        _forget_pages(database_of(house))
    path = house.root / "notify"
    path.unlink(missing_ok=True)
    with notify_socket(path) as heard:
        began = time.perf_counter()
        house.start({"NOTIFY_SOCKET": str(path)}, ready=False)
        while not any("READY=1" in message for message in heard()):
            if house.process is None or house.process.poll() is not None:
                raise SystemExit(f"bench: the daemon did not start: {house.log}")
            time.sleep(0.002)
        return time.perf_counter() - began


def _forget_pages(path: Path) -> None:
    """Let the kernel drop the file from its page cache."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process so far, by the clock of clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    (line,) = (one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS:"))
    return int(line.split()[1]) << 10
