"""Shows followed jobs: bars that change in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hyper2kvmd.cli import job_views
from hyper2kvmd.cli.output import Output, printable

if TYPE_CHECKING:
    from hyper2kvmd.cli.following import News
    from hyper2kvmd.daemon.wire import RunningJob, Status
    from hyper2kvmd.model.jobs import Job, JobEvent

PLAIN_SHARE = 0.1
"""Of a step, between two of its plain lines."""
BAR, NAME, NARROW = 20, 24, 100
DETAILS = {"machine", "noted", "stage-started", "space-reserved", "claimed"}
"""Kinds of events that are left out for several jobs."""


class Watched:
    """The display of `watch` while it is entered."""

    def __init__(self, output: Output, *, several: bool, events_only: bool) -> None:
        self._output, self._several, self._events_only = output, several, events_only
        self._live: Live | None = None
        self._said: dict[tuple[int, str], float] = {}
        self._begun = False

    def __enter__(self) -> Watched:
        if self._output.console.is_terminal and not self._output.json and not self._events_only:
            self._live = Live(console=self._output.console, transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, news: News) -> None:
        if self._output.json:
            return
        if not self._begun and self._several and self._live is None and news.jobs:
            self._output.line(summary(news.status))
        self._begun = True
        for job, event in news.events:
            if line := self._event_line(job, event):
                self._output.line(line)
        if self._live is not None:
            self._live.update(self._bars(news), refresh=True)
            return
        for one in () if self._events_only else news.running:
            self._say_progress(one)

    def remark(self, text: str) -> None:
        if not self._output.json:
            self._output.line(text, style="yellow")

    def _event_line(self, job: Job, event: JobEvent) -> str:
        if not self._several:
            return job_views.event_line(event)
        return "" if event.kind in DETAILS else f"job {job.id} ({job.vm_name})  {job_views.event_line(event)}"

    def _say_progress(self, one: RunningJob) -> None:
        """Every tenth of a step."""
        if one.progress is None:
            return
        step = one.id, f"{one.stage}{one.step}"
        if one.progress - self._said.get(step, 0.0) >= PLAIN_SHARE:
            self._said[step] = one.progress
            self._output.line(f"job {one.id} ({one.vm_name})  {job_views.running(one)}")

    def _bars(self, news: News) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        narrow = self._output.console.width < NARROW
        for column in range(4):
            table.add_column(no_wrap=True, overflow="ellipsis", max_width=NAME if narrow and not column else None)
        for one in news.running:
            table.add_row(*_bar(one))
        parts: list[RenderableType] = [table] if news.running else []
        if self._several:
            parts.append(Text(summary(news.status), style="dim"))
        elif not news.running:
            parts.extend(Text(printable(waiting(job)), style="dim") for job in news.jobs)
        return Group(*parts)


def _bar(one: RunningJob) -> Iterator[RenderableType]:
    stage = one.stage.value if one.stage else "starting"
    yield Text(printable(f"{one.id} {one.vm_name}: {stage}"))
    yield ProgressBar(total=1.0, completed=one.progress or 0.0, width=BAR, pulse=one.progress is None)
    yield Text("" if one.progress is None else f"{one.progress:.0%}", justify="right")
    yield Text(", ".join(job_views.pace(one)) or printable(one.step))


def summary(status: Status) -> str:
    counts = status.counts
    words = [f"{counts.running} running", f"{counts.queued} queued"]
    words += [f"{counts.held} held"] if counts.held else []
    words += [f"the queue is {status.state}"] if status.state != "running" else []
    return ", ".join(words)


def waiting(job: Job) -> str:
    from hyper2kvmd.start_times import waits_for

    reason = f": waits for {waits_for(job)}" if job.waiting_for else ""
    return f"{job.id} {job.vm_name} {job.state.said}{reason}"


def named(jobs: Sequence[Job]) -> str:
    """`job 12 (web01)`, or `3 jobs`."""
    return f"job {jobs[0].id} ({jobs[0].vm_name})" if len(jobs) == 1 else f"{len(jobs)} jobs"
