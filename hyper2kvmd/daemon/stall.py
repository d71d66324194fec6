"""Watches whether a running job still moves: a warning first, and later the end of its worker.

A worker reports the bytes of its conversion. In other steps its processes show whether it works.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

SILENCE_SECONDS = 10.0
"""After this time without a report, the processes of a job are examined."""
MOVED_BYTES = 1 << 20
BUSY_PART = 0.05
"""Of a processor: processes that only wait use less."""


@dataclass(frozen=True)
class Activity:
    """What the processes of a job have done so far."""

    processes: frozenset[int]
    moved_bytes: int
    cpu_seconds: float


def activity_of(pid: int) -> Activity:
    """Of a process and all below it, as far as they may be examined."""
    import psutil

    processes: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        worker = psutil.Process(pid)
        processes = [worker, *worker.children(recursive=True)]
    moved, cpu = 0, 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            cpu += times.user + times.system
            io = process.io_counters()
            moved += io.read_chars + io.write_chars
    return Activity(frozenset(process.pid for process in processes), moved, cpu)


class StallWatch:
    """Times are those of one monotonic clock, in seconds. A stall is reported once, until the job moves again."""

    def __init__(self, report_seconds: float, end_seconds: float = 0.0) -> None:
        """0: never. The time begins with the first movement."""
        self.report_seconds, self.end_seconds = report_seconds, end_seconds
        self._moved, self._reported = math.inf, False
        self._worked = -math.inf
        self._bytes = (0, 0)
        self._activity: Activity | None = None

    def move(self, now: float) -> None:
        self._moved, self._reported, self._activity = now, False, None

    def move_bytes(self, done: int, written: int, now: float) -> None:
        """Only if there are other numbers than before."""
        if (done, written) != self._bytes:
            self._bytes = done, written
            self.move(now)

    def is_silent(self, now: float) -> bool:
        """Whether the processes have to be examined to know that the job works."""
        return self.end_seconds > 0 and now - self._moved >= min(SILENCE_SECONDS, self.end_seconds / 4)

    def compare(self, activity: Activity, now: float) -> None:
        """Note what the processes have done. One that works is not ended, however long it takes."""
        before = self._activity
        if before is not None:
            since = now - max(self._worked, self._moved)
            idle = (
                activity.processes == before.processes
                and activity.moved_bytes - before.moved_bytes < MOVED_BYTES
                and activity.cpu_seconds - before.cpu_seconds < max(1.0, BUSY_PART * since)
            )
            if idle:
                return
            self._worked = now
        self._activity = activity

    def report_due(self, now: float) -> bool:
        """Whether a stall has to be reported now."""
        if self._reported or not self.report_seconds or now - self._moved < self.report_seconds:
            return False
        self._reported = True
        return True

    def end_due(self, now: float) -> bool:
        """Whether the worker has to be ended now."""
        return self.end_seconds > 0 and now - max(self._moved, self._worked) >= self.end_seconds
