"""How far one step of a job is, how fast it is, and when it will be over."""

from __future__ import annotations

from collections import deque

RECENT_SECONDS = 10.0
"""Over which the speed is measured."""
SHORTEST_SECONDS = 1.0
"""A speed that was measured for less time says nothing."""


class Pace:
    def __init__(self, total: int | None) -> None:
        """`total` in bytes; None for a step without a measure."""
        self.total = total
        self.done = 0
        self._samples: deque[tuple[float, int]] = deque()

    @property
    def progress(self) -> float | None:
        """From 0 to 1; None for a step without a measure."""
        if self.total is None:
            return None
        return min(1.0, self.done / self.total) if self.total else 1.0

    def advance_to(self, done: int, now: float) -> None:
        """`now` is a time of the monotonic clock."""
        self.done = done
        self._samples.append((now, done))
        self._forget(now)

    def bytes_per_second(self, now: float) -> float | None:
        """In the last RECENT_SECONDS; 0 if nothing moved. None if it cannot be known yet."""
        self._forget(now)
        if not self._samples:
            return None
        since, before = self._samples[0]
        elapsed = now - since
        return (self.done - before) / elapsed if elapsed >= SHORTEST_SECONDS else None

    def eta_seconds(self, now: float) -> float | None:
        """Until the end of the step, at the present speed."""
        speed = self.bytes_per_second(now)
        return (self.total - self.done) / speed if speed and self.total is not None else None

    def _forget(self, now: float) -> None:
        """Keep one sample that is older, as the beginning."""
        while len(self._samples) > 1 and self._samples[1][0] <= now - RECENT_SECONDS:
            self._samples.popleft()
