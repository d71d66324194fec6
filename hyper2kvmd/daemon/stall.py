"""Watches whether a running job still moves."""

from __future__ import annotations

import math


class StallWatch:
    """Times are those of one monotonic clock, in seconds. A stall is reported once, until the job moves again."""

    def __init__(self, after_seconds: float) -> None:
        """0: never. The time begins with the first movement."""
        self._after, self._moved, self._reported = after_seconds, math.inf, False
        self._bytes = (0, 0)

    def move(self, now: float) -> None:
        self._moved, self._reported = now, False

    def move_bytes(self, done: int, written: int, now: float) -> None:
        """Only if there are other numbers than before."""
        if (done, written) != self._bytes:
            self._bytes = done, written
            self.move(now)

    def report_due(self, now: float) -> bool:
        """Whether a stall has to be reported now."""
        if self._reported or not self._after or now - self._moved < self._after:
            return False
        self._reported = True
        return True
