"""A program of its own that checks and copies SQLite files: `python -m hyper2kvmd.jobs.sqlite_tool`.

It reads the file past the page cache, and tells damage of the file from faults of the file system. The daemon must not
open the file except through SQLite: closing it would end the locks that SQLite has on it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

PR_SET_PDEATHSIG = 1
"""prctl(2)"""
BUSY_SECONDS = 60.0
BLOCK = 1 << 20
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
LISTED = 3
"""Errors of a file that are listed."""


def primary(error: BaseException | None) -> int:
    """SQLite's primary result code of an error, without its variant; 0 for an error that is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def read_from_disk(path: Path) -> None:
    """Drop the cached pages of the file that are not dirty, and read it. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        while os.read(handle, BLOCK):
            pass
    finally:
        os.close(handle)


def faults_of(path: Path, pragma: str) -> list[str]:
    """What the check finds in the file. Raises sqlite3.DatabaseError."""
    address = f"file:{quote(str(path))}?mode=rw"
    with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA cell_size_check=ON")
        found = [" ".join(str(row[0]).split()) for row in connection.execute(f"PRAGMA {pragma}({LISTED})")]
        if found != ["ok"] or pragma == "quick_check":
            return [] if found == ["ok"] else found
        rows = connection.execute("PRAGMA foreign_key_check").fetchmany(LISTED)
        return [f"row {row[1]} of {row[0]} refers to a missing row of {row[2]}" for row in rows]


def copy(path: Path, place: Path) -> list[str]:
    """A checked copy of the database as it is at one moment, which others may be using.

    Returns what is wrong with the copy, which is removed then. Raises OSError and sqlite3.DatabaseError.
    """
    # Without the time: the next backup of that kind removes the draft of a killed one.
    draft = place.with_name(f".{path.name}{place.suffix}.partial")
    lock = _locked(draft)
    try:
        source = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=BUSY_SECONDS)
        with closing(source), closing(sqlite3.connect(draft)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
        found = faults_of(draft, "integrity_check")
        if not found:
            make_durable(draft)
            draft.rename(place)
            make_durable(place.parent)
        return found
    finally:
        if _is_at(lock, draft):
            _remove(draft)
        os.close(lock)


def _locked(draft: Path) -> int:
    """An empty file. A backup of the same kind waits here until the one before it has ended. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        handle = os.open(draft, flags, 0o600)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_at(handle, draft) and not os.fstat(handle).st_size:
                _journal(draft).unlink(missing_ok=True)
                return handle
            if _is_at(handle, draft):  # of a backup that was killed
                _remove(draft)
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.lstat())
    return False


def _remove(draft: Path) -> None:
    """The draft goes last: another backup may begin then."""
    for path in (_journal(draft), draft):
        path.unlink(missing_ok=True)


def _journal(draft: Path) -> Path:
    return draft.with_name(f"{draft.name}-journal")


def make_durable(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def main() -> None:
    """Print what was found: `damage` of the file, or a `fault` of the file system or another program.

    Arguments: the PID of the process that reads the answer, a verb, the path, and the path of a copy. This program ends
    with that process.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        return
    verb, path = sys.argv[2], Path(sys.argv[3])
    answer: dict[str, object] = {"damage": [], "fault": ""}
    with suppress(OSError):
        os.nice(10)
    try:
        read_from_disk(path)
        damage = copy(path, Path(sys.argv[4])) if verb == "backup" else faults_of(path, verb)
        answer["damage"] = damage
    except sqlite3.Error as error:
        answer = {"damage": [str(error)]} if primary(error) in DAMAGE else {"fault": str(error)}
    except OSError as error:
        answer = {"fault": f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror or error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
