"""Whether the wall clock can be trusted to tell how old something is.

A clock that jumped forward by years makes everything old. So each clean-up notes the wall clock and the time since the
boot of the host, and the next one compares both. After a jump nothing is removed until the clock was regular for a
while. A clock that jumped back makes everything young, which removes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from hyper2kvmd.errors import TryLater
from hyper2kvmd.units import local_time

NOTE = "cleanup.json"
"""The note of the last clean-up, in the state directory."""
TOLERANCE_SECONDS = 300.0
"""Corrections by NTP, and the drift of a clock in a day."""
MAX_GAP_SECONDS = 2 * 86_400.0
"""From the last time on record, if the host was restarted since: the timer runs daily."""
SETTLING_SECONDS = 12 * 3600.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Reading:
    wall: float
    since_boot: float
    boot_id: str
    """Empty if it cannot be read: then every reading is of another boot."""
    doubted_since: float | None = None
    """The wall clock when it was first doubted."""


def read_clocks() -> Reading:
    boot_id = ""
    with contextlib.suppress(OSError):
        boot_id = BOOT_ID.read_text().strip()
    return Reading(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), boot_id)


def judged(now: Reading, before: Reading | None, newest: float | None) -> Reading:
    """`now`, with `doubted_since` unless it can be trusted.

    `before` is the reading of the last clean-up, `newest` the latest time that the database has on record.
    """
    if before is None:
        plausible = newest is None or -TOLERANCE_SECONDS <= now.wall - newest <= MAX_GAP_SECONDS
        return now if plausible else replace(now, doubted_since=now.wall)
    if not _regular(now, before, newest):
        return replace(now, doubted_since=now.wall)
    if before.doubted_since is not None and now.wall - before.doubted_since < SETTLING_SECONDS:
        return replace(now, doubted_since=before.doubted_since)
    return now


def _regular(now: Reading, before: Reading, newest: float | None) -> bool:
    passed = now.wall - before.wall
    if now.boot_id and now.boot_id == before.boot_id:
        return abs(passed - (now.since_boot - before.since_boot)) <= TOLERANCE_SECONDS
    last = before.wall if newest is None or before.doubted_since is not None else max(before.wall, newest)
    return -TOLERANCE_SECONDS <= now.wall - last <= MAX_GAP_SECONDS


def require_plausible_clock(state_dir: Path, newest: datetime | None, *, dry_run: bool) -> None:
    """Compare the clocks with the last clean-up, and note them for the next one.

    Raises TryLater (`clock-doubtful`).
    """
    now = judged(read_clocks(), _noted(state_dir), None if newest is None else newest.timestamp())
    if not dry_run:
        with contextlib.suppress(OSError):  # on a full file system, a clean-up is needed all the more
            _note(state_dir, now)
    if now.doubted_since is not None:
        raise TryLater(
            "clock-doubtful",
            f"the clock of this host jumped, or it was off for days: it is {local_time(datetime.now().astimezone())}"
            " now, so the age of files is uncertain and nothing is removed",
            hint="Check the time with `timedatectl`. If it is right, the first clean-up after 12 hours removes again",
        )


def _noted(state_dir: Path) -> Reading | None:
    """None also if the note is damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Reading(**json.loads((state_dir / NOTE).read_text()))
    return None


def _note(state_dir: Path, reading: Reading) -> None:
    """Replace the note: it may belong to root, and root must not write through a link of the service's."""
    draft = f"{NOTE}.new"
    folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)
        with os.fdopen(os.open(draft, flags, 0o644, dir_fd=folder), "w") as file:
            json.dump(asdict(reading), file)
        os.rename(draft, NOTE, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)
