"""Finds the files in `incoming/` and watches them until they are stable, at a bounded cost.

However many files there are, a scan reads MAX_READ names at most; the next scan continues after them.
"""

from __future__ import annotations

import itertools
import logging
import os
import stat
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hyper2kvmd.daemon.quota import FileState
from hyper2kvmd.host.person import Person

log = logging.getLogger(__name__)
"""Its messages are limited, because a submitter can cause them again and again: journal.LIMITED."""

SUFFIXES = (".yaml", ".yml")
MAX_READ = 20_000
"""Names that are read in a scan: about 100 ms if each is examined."""
MAX_WATCHED = 10_000
"""Files of one submitter that are watched at the same time."""
STABLE_SECONDS = 1.0
"""A file that has not changed for this long is assumed to be complete."""
MAX_NAME = 180
"""Bytes of a file name that are kept: room for our own additions within the 255 of a file system."""


class Incoming:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listing: Iterator[os.DirEntry[str]] | None = None
        self._watched: dict[str, tuple[FileState, float]] = {}
        """The state of each file, and since when it is unchanged (monotonic)."""
        self._crowded: set[int] = set()

    def stable_files(self) -> dict[str, FileState]:
        """Scan the folder once; return the files that have not changed for STABLE_SECONDS. Raises OSError."""
        now = time.monotonic()
        stable: dict[str, FileState] = {}
        before, self._watched = self._watched, {}
        for name, (look, since) in before.items():
            again = self._state_of(name)
            if again is None:
                continue
            self._watched[name] = again, since if again == look else now
            if again == look and now - since >= STABLE_SECONDS and not stat.S_ISDIR(look.mode):
                stable[name] = look
        self._watch_more(now)
        return stable

    def forget(self, name: str) -> None:
        """Stop watching a file that was taken."""
        self._watched.pop(name, None)

    def _watch_more(self, now: float) -> None:
        numbers = Counter(look.uid for look, _ in self._watched.values())
        full: set[int] = set()
        for name in self._next_names():
            if name in self._watched or not is_submission(name) or (look := self._state_of(name)) is None:
                continue
            if numbers[look.uid] >= MAX_WATCHED:
                full.add(look.uid)
                continue
            numbers[look.uid] += 1
            self._watched[name] = look, now
            if stat.S_ISDIR(look.mode):
                log.warning("spool: %s is a directory. It stays where it is. Drop files", kept(name))
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

    def _state_of(self, name: str) -> FileState | None:
        with suppress(OSError):  # the file is gone, or the error shows when the folder is read
            return FileState.at(f"{self._folder}/{name}")
        return None


def is_submission(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def kept(name: str) -> str:
    """The file name for the spool: printable, valid UTF-8, and short enough for our additions."""
    text = name.encode(errors="surrogateescape").decode(errors="replace")
    text = "".join(letter if letter.isprintable() else "_" for letter in text)
    path = Path(text)
    room = MAX_NAME - len(path.suffix.encode())
    return path.stem.encode()[:room].decode(errors="ignore") + path.suffix
