"""Shares the spool between submitters: whose file is taken next, and how many files of one submitter are taken.

A submitter is the owner of a file. Files over a limit stay in `incoming/` and are taken later. A file of several
machines that was taken stays in `active/` until there is room for all of them.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from hyper2kvmd.errors import TryLater
from hyper2kvmd.host.person import Person
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import State

log = logging.getLogger(__name__)

MAX_IN_A_SCAN = 100
MAX_WAITING = 10_000
"""Jobs of one submitter that are queued or held."""
MAX_IN_AN_HOUR = 10_000
HOUR_SECONDS = 3600.0
KEPT = {State.REJECTED: 1_000, State.FAILED: 10_000, State.CANCELLED: 10_000, State.SUCCEEDED: 100_000}
"""Jobs of one submitter that stay on record with their spool files, by how they ended. The oldest are removed."""


class FileState(NamedTuple):
    """The attributes that show a change of a file. A file is stable when they have been the same for a while."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    uid: int
    mode: int

    @staticmethod
    def at(path: Path | str) -> FileState:
        facts = os.lstat(path)
        return FileState(facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_uid, facts.st_mode)


def in_turn(files: Mapping[str, FileState], name_of: Callable[[str], str]) -> Iterator[str]:
    """One file of each owner, then the next of each; the files of one owner by time of change, then by name."""
    queues: dict[int, list[str]] = defaultdict(list)
    for file in sorted(files, key=lambda file: (files[file].mtime_ns, name_of(file))):
        queues[files[file].uid].append(file)
    for turn in itertools.zip_longest(*queues.values()):
        yield from (file for file in turn if file is not None)


class Quota:
    """How many files of each submitter may still be taken, and how many jobs they may become."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._taken: dict[int, deque[float]] = defaultdict(deque)
        """When files were taken within the last hour, for each uid."""
        self._lock = threading.Lock()
        """Of `_taken`: the spool and the control socket count in threads of their own."""
        self._left: dict[int, int] = {}
        self._waiting: dict[str, int] = {}
        self._later: dict[int, int] = {}
        """How many more the next scans may take, for each uid."""
        self._limited: set[int] = set()
        self._further: dict[int, int] = defaultdict(int)
        """Jobs beyond one for each file that enter in this scan, for each uid."""
        self._full: set[int] = set()
        """Owners of files in active/ that found no room in the last scan."""
        self.more = False
        """Whether this scan refused a file that the next one would take."""

    def begin_scan(self) -> None:
        """Raises the errors of the store."""
        self._waiting = self._store.waiting()
        self._left, self._later, self.more = {}, {}, False

    def allows(self, uid: int) -> bool:
        """Whether one more file of `uid` may be taken in this scan. Logs the first refusal of a series."""
        if uid not in self._left:
            allowance = self._allowance(uid)
            self._left[uid] = min(MAX_IN_A_SCAN, allowance)
            self._later[uid] = allowance - self._left[uid]
        allowed = self._left[uid] > 0
        self.more |= not allowed and self._later[uid] > 0
        return allowed

    def take(self, uid: int) -> None:
        self._left[uid] -= 1
        self._taken[uid].append(time.monotonic())

    def begin_entering(self) -> None:
        """Raises the errors of the store."""
        self._waiting = self._store.waiting()
        self._further.clear()
        self._full.clear()

    def has_room(self, uid: int, jobs: int) -> bool:
        """Whether a file of `uid` that was taken may become so many jobs in this scan.

        After the first refusal there is no room for other files of `uid`: else smaller ones would overtake it for ever.
        """
        waiting, hourly = self._room(uid)
        if jobs > waiting or jobs - 1 > hourly - self._further[uid]:
            self._full.add(uid)
            self._mention(uid, limit_is_waiting=jobs > waiting)
        return uid not in self._full

    def count(self, uid: int, jobs: int) -> None:
        """Count the jobs that a file of `uid` becomes in this scan."""
        name = Person.of(uid).name
        self._waiting[name] = self._waiting.get(name, 0) + jobs
        self._further[uid] += jobs - 1

    def charge(self, uid: int, jobs: int) -> None:
        """Count the further jobs of a file that was taken, for the limit of the hour."""
        self._taken[uid].extend([time.monotonic()] * jobs)

    def admit(self, uid: int, jobs: int) -> None:
        """Count jobs that `uid` submits in another way. Raises TryLater (`submitter-limit`), and the store's errors."""
        waiting = self._store.waiting().get(Person.of(uid).name, 0)
        with self._lock:
            full = waiting + jobs > MAX_WAITING
            if full or jobs > self._left_in_hour(uid):
                limit = f"{MAX_WAITING} waiting jobs" if full else f"{MAX_IN_AN_HOUR} machines within an hour"
                raise TryLater(
                    "submitter-limit",
                    f"{Person.of(uid).name} is at the limit of {limit}",
                    hint="Submit the rest when jobs have finished",
                )
            self._taken[uid].extend([time.monotonic()] * jobs)

    def _allowance(self, uid: int) -> int:
        if uid in self._full:
            return 0
        waiting, hourly = self._room(uid)
        if min(waiting, hourly) > 0:
            self._limited.discard(uid)
        else:
            self._mention(uid, limit_is_waiting=waiting <= 0)
        return min(waiting, hourly)

    def _room(self, uid: int) -> tuple[int, int]:
        """How many more jobs may wait, and how many more may be taken within the hour."""
        with self._lock:
            hourly = self._left_in_hour(uid)
        return MAX_WAITING - self._waiting.get(Person.of(uid).name, 0), hourly

    def _left_in_hour(self, uid: int) -> int:
        taken = self._taken[uid]
        while taken and taken[0] < time.monotonic() - HOUR_SECONDS:
            taken.popleft()
        return MAX_IN_AN_HOUR - len(taken)

    def _mention(self, uid: int, *, limit_is_waiting: bool) -> None:
        if uid not in self._limited:
            self._limited.add(uid)
            waiting, hourly = f"{MAX_WAITING} waiting jobs", f"{MAX_IN_AN_HOUR} machines within an hour"
            limit = waiting if limit_is_waiting else hourly
            log.warning("spool: %s is at the limit of %s. Further files wait", Person.of(uid).name, limit)
