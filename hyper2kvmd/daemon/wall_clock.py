"""Watches the wall clock: after a jump, times of day are doubted for a while."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.uptime import Uptime

JUMP_SECONDS = 300.0
"""A larger step is a jump; a smaller one is a correction by NTP."""
SETTLING_SECONDS = 600.0
"""For so long the clock is doubted after a jump."""
RECORD_SECONDS = 3600.0
"""A record of another boot or of this age tells the next daemon too little."""


class ClockRecord(Frozen):
    """What one look at the clocks found. It is kept in the database for the next daemon."""

    boot: str
    wall: datetime
    seconds: float
    """Of the uptime."""
    jumped: float | None = None
    """The uptime at the last jump."""


class WallClock:
    def __init__(self, last: ClockRecord | None = None) -> None:
        """`last` is the record of an earlier daemon."""
        self._last = last

    @property
    def record(self) -> ClockRecord | None:
        return self._last

    def is_news(self, kept: ClockRecord | None) -> bool:
        """Whether the last look has to be kept in place of the record `kept`."""
        if self._last is None:
            return False
        return kept is None or kept.boot != self._last.boot or abs(self._last.seconds - kept.seconds) >= RECORD_SECONDS

    def look(self, wall: datetime, uptime: Uptime) -> timedelta | None:
        """By how much the clock has jumped since the last look; None if it has not."""
        last, jump = self._last, None
        if last is not None and last.boot == uptime.boot:
            jump = wall - last.wall - timedelta(seconds=uptime.seconds - last.seconds)
        elif last is not None and wall < last.wall:
            jump = wall - last.wall
        if jump is not None and abs(jump) < timedelta(seconds=JUMP_SECONDS):
            jump = None
        same_boot = last is not None and last.boot == uptime.boot
        jumped = uptime.seconds if jump is not None else last.jumped if last is not None and same_boot else None
        self._last = ClockRecord(boot=uptime.boot, wall=wall.astimezone(UTC), seconds=uptime.seconds, jumped=jumped)
        return jump

    def trusted(self, uptime: Uptime) -> bool:
        """Whether times of day can be believed: there was no jump for a while."""
        if self._last is None or self._last.jumped is None:
            return True
        return uptime.seconds - self._last.jumped >= SETTLING_SECONDS
