"""Finds the files in `incoming/` and watches them until they are stable, at a bounded cost.

However many files there are, a scan reads MAX_READ names at most; the next scan continues after them.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from hyper2kvmd.daemon.ignored import Ignored
from hyper2kvmd.daemon.names import reason_to_ignore
from hyper2kvmd.daemon.quota import FileState
from hyper2kvmd.host.person import Person

log = logging.getLogger(__name__)
"""Its messages are limited, because a submitter can cause them again and again: journal.LIMITED."""

MAX_READ = 20_000
"""Names that are read in a scan: about 100 ms if each is examined."""
MAX_WATCHED = 10_000
"""Files of one submitter that are watched at the same time."""
STABLE_SECONDS = 1.0
"""A file that has not changed for this long is assumed to be complete."""


class Incoming:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listing: Iterator[os.DirEntry[str]] | None = None
        self._watched: dict[str, tuple[FileState, float]] = {}
        """The state of each file, and since when it is unchanged (monotonic)."""
        self._crowded: set[int] = set()
        self._stable: dict[str, FileState] = {}
        self._scanned = -math.inf
        """When the folder was scanned last (monotonic)."""
        self.ignored = Ignored()

    def expect(self, arrived: Iterable[str]) -> None:
        """Take files for stable that were just renamed into the folder, so that they are complete.

        One that the daemon cannot read is watched like others: its owner may be about to change its mode.
        """
        numbers: Counter[int] | None = None
        for name in arrived:
            look = self._state_of(name)
            if look is None or not look.size or not stat.S_ISREG(look.mode):
                continue
            if reason_to_ignore(name, look.mode) or not self._is_readable(name):
                continue
            numbers = Counter(one.uid for one, _ in self._watched.values()) if numbers is None else numbers
            if name in self._watched or numbers[look.uid] < MAX_WATCHED:
                numbers[look.uid] += name not in self._watched
                self._watched[name] = look, time.monotonic() - STABLE_SECONDS
                self._stable[name] = look

    def stable_files(self) -> dict[str, FileState]:
        """The files that have not changed for STABLE_SECONDS, which is also how often the folder is scanned.

        Files may have changed since the last scan. Raises OSError.
        """
        now = time.monotonic()
        if now - self._scanned >= STABLE_SECONDS:
            self._stable = self._scan(now)
            self._scanned = now
        return dict(self._stable)

    def _scan(self, now: float) -> dict[str, FileState]:
        stable: dict[str, FileState] = {}
        before, self._watched = self._watched, {}
        for name, (look, since) in before.items():
            again = self._state_of(name)
            if again is None or reason_to_ignore(name, again.mode):  # gone, or replaced by a directory
                continue
            self._watched[name] = again, since if again == look else now
            if again == look and now - since >= STABLE_SECONDS:
                stable[name] = look
        self._watch_more(now)
        return stable

    def forget(self, name: str) -> None:
        """Stop watching a file that was taken."""
        self._watched.pop(name, None)
        self._stable.pop(name, None)

    def _watch_more(self, now: float) -> None:
        numbers = Counter(look.uid for look, _ in self._watched.values())
        full: set[int] = set()
        for name in self._next_names():
            if name in self._watched or (look := self._state_of(name)) is None:
                continue
            if reason := reason_to_ignore(name, look.mode):
                self.ignored.see(name, look, reason)
                continue
            if numbers[look.uid] >= MAX_WATCHED:
                full.add(look.uid)
                continue
            numbers[look.uid] += 1
            self._watched[name] = look, now
        if self._listing is None:
            self.ignored.end_pass()
        for uid in full - self._crowded:
            said = "spool: %s has more than %d files in incoming/. The others wait until these have been taken"
            log.warning(said, Person.of(uid).name, MAX_WATCHED)
        self._crowded = {uid for uid in self._crowded | full if numbers[uid] >= MAX_WATCHED}

    def _next_names(self) -> list[str]:
        """The next names of the folder, MAX_READ at most; after the last one, the next call begins with the first."""
        listing, self._listing = self._listing or os.scandir(self._folder), None
        names = [entry.name for entry in itertools.islice(listing, MAX_READ)]
        if len(names) == MAX_READ:
            self._listing = listing
        return names

    def _is_readable(self, name: str) -> bool:
        try:
            os.close(os.open(f"{self._folder}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    def _state_of(self, name: str) -> FileState | None:
        with suppress(OSError):  # the file is gone, or the error shows when the folder is read
            return FileState.at(f"{self._folder}/{name}")
        return None
