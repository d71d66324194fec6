"""Files in `incoming/` that are no submissions: the reason goes to the log once, and to the status.

A copy in progress often has such a name for a moment, so only what stays unchanged for a while is reported.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from hyper2kvmd.daemon.names import kept
from hyper2kvmd.daemon.quota import FileState
from hyper2kvmd.daemon.wire import IgnoredFile
from hyper2kvmd.host.person import Person

log = logging.getLogger(__name__)
"""Its messages are limited, because a submitter can cause them again and again: journal.LIMITED."""

PATIENCE_SECONDS = 30.0
"""A file that has not changed for this long is no draft of a copy in progress."""
MAX_KNOWN = 100
"""Files of one owner that are remembered; further ones are only counted."""
MAX_LOGGED = 10
"""Files of one owner that are logged. A further one is logged when one of them is gone."""
MAX_SHOWN = 20
"""Files in one answer."""


@dataclass(frozen=True)
class IgnoredFiles:
    """What the last complete pass over the folder found."""

    files: tuple[IgnoredFile, ...] = ()
    """The oldest first."""
    numbers: Mapping[int, int] = field(default_factory=dict)
    """All of each owner, by uid."""

    def shown_to(self, owner: int | None) -> tuple[tuple[IgnoredFile, ...], int]:
        """The oldest MAX_SHOWN files of a uid, or of everybody for None, and the number of all."""
        files = tuple(file for file in self.files if owner in (None, file.owner_uid))
        return files[:MAX_SHOWN], sum(number for uid, number in self.numbers.items() if owner in (None, uid))


@dataclass(frozen=True)
class _Seen:
    look: FileState
    reason: str
    since: float
    """Unchanged since then (monotonic)."""
    logged: bool = False


class Ignored:
    """Is told of each such file whenever the folder is read."""

    def __init__(self) -> None:
        self.found = IgnoredFiles()
        self._before: dict[str, _Seen] = {}
        self._now: dict[int, dict[str, _Seen]] = defaultdict(dict)
        self._further: Counter[int] = Counter()

    def see(self, name: str, look: FileState, reason: str) -> None:
        theirs = self._now[look.uid]
        if len(theirs) >= MAX_KNOWN:
            self._further[look.uid] += 1
            return
        before = self._before.get(name)
        theirs[name] = before if before and before.look == look else _Seen(look, reason, time.monotonic())

    def end_pass(self) -> None:
        """The folder was read to its end."""
        old = time.monotonic() - PATIENCE_SECONDS
        files: list[IgnoredFile] = []
        numbers: Counter[int] = Counter()
        self._before = {}
        for uid, theirs in self._now.items():
            due = {name: seen for name, seen in theirs.items() if seen.since <= old}
            files += (_shown(name, seen) for name, seen in due.items())
            numbers[uid] = len(due) + self._further[uid]
            self._before |= theirs | _logged(due)
        self.found = IgnoredFiles(tuple(sorted(files, key=lambda file: (file.since, file.name))), numbers)
        self._now, self._further = defaultdict(dict), Counter()


def _logged(due: Mapping[str, _Seen]) -> dict[str, _Seen]:
    """Log the new ones of an owner's files, MAX_LOGGED in all; return those that were logged now."""
    new = [(name, seen) for name, seen in due.items() if not seen.logged]
    room = max(0, MAX_LOGGED - (len(due) - len(new)))
    for name, seen in new[:room]:
        owner = Person.of(seen.look.uid).name
        log.warning("spool: incoming/%s of %s is ignored: %s", kept(name), owner, seen.reason)
    return {name: replace(seen, logged=True) for name, seen in new[:room]}


def _shown(name: str, seen: _Seen) -> IgnoredFile:
    since = datetime.fromtimestamp(seen.look.ctime_ns / 1e9, UTC)
    return IgnoredFile(name=kept(name), reason=seen.reason, since=since, owner_uid=seen.look.uid)
