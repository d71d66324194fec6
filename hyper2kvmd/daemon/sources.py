"""Which jobs read from the same file system, and how many of them may run at the same time: `max_per_source`.

The file system of a path is found in the table of mounts. The path itself is not used: its server may not respond.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from hyper2kvmd.config import REST, MaxPerSource

MOUNTS = Path("/proc/self/mountinfo")
ESCAPED = re.compile(r"\\([0-7]{3})")
"""A space, a tab, a newline or a backslash in a mount point: see proc_pid_mountinfo(5)."""
Sources = tuple[str, ...]
"""The directories that a job reads from."""


def read_mounts(text: str) -> Mapping[Path, str]:
    """The device number of the file system at each mount point. Of several at one place, the last one is visible."""
    lines = (line.split(" ") for line in text.splitlines())
    return {Path(ESCAPED.sub(lambda found: chr(int(found[1], 8)), words[4])): words[2] for words in lines}


def file_system_of(directory: Path, mounts: Mapping[Path, str]) -> str:
    """By the longest mount point that is the directory or above it."""
    above = (place for place in (directory, *directory.parents) if place in mounts)
    return mounts[next(above)] if directory.is_absolute() and Path("/") in mounts else ""


def limit_of(directory: Path, limits: MaxPerSource) -> int | None:
    """By the longest of the configured directories that is the directory or above it."""
    if isinstance(limits, int):
        return limits
    named = (limits[str(place)] for place in (directory, *directory.parents) if str(place) in limits)
    return next(named, limits.get(REST))


def admission(limits: MaxPerSource, running: Iterable[Sources]) -> Callable[[Sources], bool]:
    """A function that says whether a job with these sources may start beside the running jobs."""
    mounts = read_mounts(MOUNTS.read_text(encoding="utf-8", errors="surrogateescape"))

    @cache
    def read(directory: str) -> tuple[str, int | None]:
        path = Path(directory)
        return file_system_of(path, mounts), limit_of(path, limits)

    used = Counter(one for sources in running for one in {read(directory)[0] for directory in sources})

    def admits(sources: Sources) -> bool:
        asked = (read(directory) for directory in sources)
        return all(limit is None or used[file_system] < limit for file_system, limit in asked)

    return admits


def limits_line(limits: MaxPerSource) -> str:
    """For the log."""
    if isinstance(limits, int):
        return f"{limits} at the same time from one file system"
    named: Sequence[str] = [f"{number} from {name}" for name, number in limits.items() if name != REST]
    return ", ".join([*named, f"{limits[REST]} from any other" if REST in limits else "any number from others"])
