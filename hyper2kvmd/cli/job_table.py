"""The table of `h2kvmctl list`: its columns, and what stands in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from hyper2kvmd.cli.table import Cell, Column, Line, in_parts, laid_out
from hyper2kvmd.units import duration

if TYPE_CHECKING:
    from hyper2kvmd.model.jobs import Job

COLUMNS = (
    Column("id", 100),
    Column("vm", 99, narrowest=12),
    Column("state", 98),
    Column("stage", 5),
    Column("progress", 4),
    Column("priority", 1),
    Column("submitted by", 2, narrowest=12),
    Column("waiting for", 6),
    Column("duration", 3),
    Column("reason", 50, narrowest=16),
)
STYLES = {"succeeded": "green", "failed": "red", "rejected": "red", "running": "cyan", "held": "yellow"}


def table(jobs: Sequence[Job], width: int | None, now: datetime) -> list[Line]:
    """`width` is that of the terminal; None if there is none."""
    return laid_out(COLUMNS, [_row(job, now) for job in jobs], width)


def in_pages(pages: Iterable[Sequence[Job]], width: int | None, now: datetime) -> Iterator[Line]:
    """The same for jobs that come page by page. For a terminal only their text is kept, else nothing."""
    rows = ([_row(job, now) for job in page] for page in pages)
    if width is None:
        return in_parts(COLUMNS, rows)
    return iter(laid_out(COLUMNS, [row for page in rows for row in page], width))


def _row(job: Job, now: datetime) -> Line:
    return (
        Cell(str(job.id)),
        Cell(job.vm_name),
        Cell(state(job), state_style(job)),
        Cell(job.stage.value if job.stage else ""),
        Cell(f"{job.progress:.0%}" if job.stage and job.state.active else ""),
        Cell(priority(job)),
        Cell(job.submitter),
        Cell(job.waiting_for.value if job.waiting_for and job.state.active else ""),
        Cell(_duration(job, now)),
        Cell(reason(job)),
    )


def state(job: Job) -> str:
    """With the number of warnings: a job can succeed and still need attention."""
    word = "cancelling" if job.cancelling else job.state.value
    return f"{word} with {warnings(job.warnings)}" if job.warnings else word


def priority(job: Job) -> str:
    """Empty for a job that was rejected: it has none."""
    return "" if job.state.value == "rejected" else str(job.priority)


def warnings(count: int) -> str:
    return f"{count} warning{'' if count == 1 else 's'}"


def state_style(job: Job) -> str:
    if job.state.value == "succeeded" and job.warnings:
        return "yellow"
    return STYLES.get(job.state.value, "")


def reason(job: Job) -> str:
    """Why it failed, or why it waits; nothing if it succeeded."""
    from hyper2kvmd.start_times import expected_start

    if job.state.value == "succeeded":
        return ""
    if not job.problems:
        return " ".join(job.note.split()) or expected_start(job)
    first = job.problems[0]
    return " ".join(f"{first.message} [{first.code}]".split())


def elapsed(job: Job, now: datetime) -> float | None:
    """Seconds since its last start, or between that and its end. None for a job that waits."""
    if job.started is None or job.state.value in ("queued", "held"):
        return None
    return max(0.0, ((job.finished or now) - job.started).total_seconds())


def _duration(job: Job, now: datetime) -> str:
    seconds = elapsed(job, now)
    return "" if seconds is None else duration(seconds)
