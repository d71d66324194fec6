"""The locks of a daemon: one in each directory that it shares with no other daemon, and one for its database.

They are held for the daemon's life. A one-shot run of `h2kvmctl` takes none: its working folders and drafts have locks
of their own.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hyper2kvmd.config import DaemonConfig, SpoolFolder
from hyper2kvmd.errors import BrokenInstallation
from hyper2kvmd.file_lock import FileLock, Held
from hyper2kvmd.jobs.database_lock import DatabaseLock

log = logging.getLogger(__name__)

LOCK = ".hyper2kvmd.lock"
STATE_LOCK = "daemon.lock"
"""In the state directory besides: the lock of earlier versions, which a daemon of theirs may hold."""
QUEUE_MARK = ".hyper2kvmd.queue"
"""In the spool and the state directory: the identity of the queue that they belong to."""
OWN_FILES = frozenset({LOCK, QUEUE_MARK, f"{QUEUE_MARK}.draft"})
"""What a daemon keeps in the spool directory beside the folders."""


def holder(config: DaemonConfig) -> str:
    """How a refused daemon describes this one."""
    return f"process {os.getpid()} on {socket.gethostname()}, state_dir {config.state_dir}"


class Locks:
    def __init__(self, config: DaemonConfig) -> None:
        self._holder = holder(config)
        self._held: dict[Path, FileLock] = {}
        self._turns: dict[Path, threading.Lock] = {}
        self._database = DatabaseLock(config.database_url, self._holder)

    def take(self, key: str, directory: Path) -> None:
        """Hold the lock of a directory, which `key` of the configuration names; do nothing if it is held already.

        A directory of root's in which this user cannot make files needs none, but for the folders of a spool.
        Raises BrokenInstallation (`already-running`), OSError.
        """
        names = (STATE_LOCK, LOCK) if key == "state_dir" else (LOCK,)
        for name in names:
            try:
                self._take(key, directory, directory / name)
            except PermissionError:
                if directory.stat().st_uid != 0 or os.access(directory, os.W_OK, effective_ids=True):
                    raise
                if key == "spool_dir":
                    self._take(key, directory, directory / SpoolFolder.ACTIVE / LOCK)

    def take_if_possible(self, key: str, directory: Path) -> None:
        """The same for a directory that may be missing, or that another user may have made."""
        with suppress(OSError):
            self.take(key, directory)

    def take_database(self) -> None:
        """Raises BrokenInstallation (`already-running`), TryLater (`database-unavailable`), OSError."""
        self._database.take()

    def _take(self, key: str, directory: Path, path: Path) -> None:
        real = path.parent.resolve() / path.name
        with self._turns.setdefault(real, threading.Lock()):  # not Held by a thread of this process that hangs there
            self._take_in_turn(key, directory, real)

    def _take_in_turn(self, key: str, directory: Path, real: Path) -> None:
        held = self._held.get(real)
        if held is not None:
            if held.valid:
                return
            self._held.pop(real).close()
            log.warning("%s %s: its lock was removed or replaced; it is taken again", key, directory)
        try:
            self._held[real] = FileLock(real, self._holder)
        except Held as found:
            who = f"process {found}" if str(found).isdecimal() else str(found)
            raise BrokenInstallation(
                "already-running",
                f"{key} {directory}: another hyper2kvmd uses it ({who})",
                hint=f"Stop that daemon, or give this one another {key}",
            ) from found

    def close(self) -> None:
        for lock in self._held.values():
            lock.close()
        self._held.clear()
        self._database.close()


def require_same_queue(marks: Mapping[str, Path], identity: str, *, fresh: bool) -> str:
    """The identity of the queue, which is then in the mark of each directory; `marks` has them by key.

    `fresh`: the database has had no job. If all directories have the same mark, such a database replaces a lost one
    and takes its identity over. Raises BrokenInstallation (`queue-foreign`), OSError.
    """
    found = {key: read_mark(directory) for key, directory in marks.items()}
    others = set(found.values())
    if fresh and len(others) == 1 and None not in others:
        (former,) = others
        assert former is not None  # noqa: S101 - narrows the type
        if former != identity:
            log.warning("the database is new: it replaces the lost one of queue %s", former)
        return former
    for key, mark in found.items():
        if mark not in (None, identity):
            raise _foreign(key, marks[key], mark, identity)
    for key, mark in found.items():
        if mark is None:
            with suppress(PermissionError):  # root's directory, with folders of this user
                _write_mark(marks[key], identity)
    return identity


def _foreign(key: str, directory: Path, mark: str | None, identity: str) -> BrokenInstallation:
    return BrokenInstallation(
        "queue-foreign",
        f"{key} {directory}: it belongs to the queue {mark}, and the database to the queue {identity}",
        hint=f"Correct {key} or database_url. To use both together all the same, remove {directory / QUEUE_MARK}",
    )


def read_mark(directory: Path) -> str | None:
    """None if there is none, or if its writer was killed before it had written."""
    try:
        return (directory / QUEUE_MARK).read_text(encoding="ascii", errors="replace").strip()[:64] or None
    except FileNotFoundError:
        return None


def _write_mark(directory: Path, identity: str) -> None:
    draft = directory / f"{QUEUE_MARK}.draft"
    with draft.open("w", encoding="ascii") as file:
        file.write(f"{identity}\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(directory / QUEUE_MARK)
