"""Follows jobs through the daemon: one look after the other, also past a restart of the daemon."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from hyper2kvmd.cli.selectors import every_job, jobs_with_numbers
from hyper2kvmd.errors import Failure

if TYPE_CHECKING:
    from hyper2kvmd.client import Client
    from hyper2kvmd.daemon.wire import RunningJob, Status
    from hyper2kvmd.model.jobs import Job, JobEvent

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 600.0
"""For a daemon that is restarted."""
ABSENT = ("daemon-unreachable", "daemon-silent", "socket-forbidden")
"""What a restart looks like. Until the new socket has its rights, it is closed to some."""
OVERLAP = timedelta(seconds=30)
"""Between the times that two looks at the whole queue cover."""


@dataclass(frozen=True)
class News:
    """What one look found."""

    status: Status
    jobs: tuple[Job, ...]
    """Those that are followed, in the order of their numbers."""
    events: tuple[tuple[Job, JobEvent], ...]
    """New ones."""

    @property
    def running(self) -> Sequence[RunningJob]:
        followed = {job.id for job in self.jobs}
        return [one for one in self.status.running if one.id in followed]


class Follower:
    """Follows the jobs with these numbers; without numbers, whatever runs in the queue."""

    def __init__(self, daemon: Client, numbers: Sequence[int] | None, *, history: bool) -> None:
        """`history`: whether the first look finds the events of the past."""
        self._daemon, self._numbers, self._history = daemon, numbers, history
        self._began = self._since = datetime.now(UTC)
        self._known: dict[int, Job] = {}
        self._seen: dict[int, int] = {}

    @property
    def started(self) -> bool:
        return bool(self._known) or self._since > self._began

    def look(self) -> News:
        """What happened since the last look. Raises as `Client` does; nothing is lost then."""
        now, status, jobs = datetime.now(UTC), self._daemon.status(), tuple(self._jobs())
        changed = [job for job in jobs if self._known.get(job.id) != job]
        events = {job.id: self._daemon.events(job.id, after=self._seen.get(job.id, 0)) for job in changed}
        told = tuple((job, event) for job in changed if self._tells(job) for event in events[job.id])
        self._known |= {job.id: job for job in jobs}
        self._seen |= {number: listed[-1].id for number, listed in events.items() if listed}
        self._since = now
        return News(status, jobs, told)

    def over(self, news: News) -> bool:
        """Whether nothing is left to follow: all jobs have ended, or wait for a person after a failure."""
        if self._numbers is not None:
            return all(job.unattended for job in news.jobs)
        return not (news.status.running or news.status.counts.queued or news.status.counts.running)

    def _tells(self, job: Job) -> bool:
        return self._history or job.id in self._seen or (self._numbers is None and self._is_new(job))

    def _is_new(self, job: Job) -> bool:
        return job.started is None or job.started >= self._began

    def _jobs(self) -> Iterable[Job]:
        if self._numbers is not None:
            return jobs_with_numbers(self._daemon, self._numbers)
        from hyper2kvmd.daemon.wire import JobsQuery
        from hyper2kvmd.model.jobs import Sort, State

        states = tuple(state for state in State if state not in (State.QUEUED, State.HELD))
        query = JobsQuery(state=states, since=self._since - OVERLAP, sort=Sort.OLDEST)
        # An earlier end than this look's is known already, except that of a job that was running.
        return [job for job in every_job(self._daemon, query) if self._concerns(job)]

    def _concerns(self, job: Job) -> bool:
        return job.state.active or job.id in self._known or (job.finished or self._began) >= self._began


class Screen(Protocol):
    """What is shown while jobs are followed."""

    def show(self, news: News) -> None: ...

    def remark(self, text: str) -> None: ...


class CtrlC:
    """While it is entered, Ctrl-C counts also where Python drops the exception, as in a finalizer."""

    def __enter__(self) -> CtrlC:
        self._pressed = False
        self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def require_none(self) -> None:
        """Raises KeyboardInterrupt."""
        if self._pressed:
            raise KeyboardInterrupt

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        self._pressed = True
        raise KeyboardInterrupt


def follow(follower: Follower, display: Screen, *, forever: bool) -> tuple[Job, ...]:
    """Until all its jobs have ended, or the queue is empty; then all jobs that it has followed.

    Raises the failure of the daemon that does not come back in PATIENCE_SECONDS.
    """
    with CtrlC() as ctrl_c:
        return _follow(follower, display, ctrl_c, forever=forever)


def _follow(follower: Follower, display: Screen, ctrl_c: CtrlC, *, forever: bool) -> tuple[Job, ...]:
    followed: dict[int, Job] = {}
    absent_since: float | None = None
    while True:
        ctrl_c.require_none()
        try:
            news = follower.look()
        except Failure as failure:
            if failure.code not in ABSENT or not follower.started:
                raise
            if absent_since is None:
                absent_since = time.monotonic()
                display.remark("the daemon does not answer; its jobs continue when it is started again")
            if time.monotonic() - absent_since > PATIENCE_SECONDS:
                raise
        else:
            if absent_since is not None:
                display.remark("the daemon answers again")
                absent_since = None
            followed |= {job.id: job for job in news.jobs}
            display.show(news)
            if not forever and follower.over(news):
                return tuple(followed[number] for number in sorted(followed))
        time.sleep(POLL_SECONDS)
