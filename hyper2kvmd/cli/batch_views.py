"""Shows batches to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hyper2kvmd.cli.job_table import warnings
from hyper2kvmd.cli.table import Cell, Column, Line, laid_out
from hyper2kvmd.units import local_time

if TYPE_CHECKING:
    from hyper2kvmd.model.jobs import Batch, Counts, Job

COLUMNS = (
    Column("id", 100),
    Column("batch", 99, narrowest=12),
    Column("finished", 50),
    Column("jobs", 98, narrowest=16),
    Column("submitted by", 3, narrowest=12),
    Column("submitted", 2),
    Column("warnings", 4),
)


def table(batches: Sequence[Batch], width: int | None) -> list[Line]:
    return laid_out(COLUMNS, [_row(batch) for batch in batches], width)


def _row(batch: Batch) -> Line:
    done = total(batch.counts) - batch.counts.active
    return (
        Cell(str(batch.id)),
        Cell(batch.name),
        Cell(f"{done} of {total(batch.counts)}"),
        Cell(by_state(batch.counts), _style(batch)),
        Cell(batch.submitter),
        Cell(local_time(batch.created)),
        Cell(str(batch.warnings or "")),
    )


def facts(batch: Batch, jobs: Sequence[Job]) -> list[tuple[str, str]]:
    rows = [
        ("batch", f"{batch.name}, number {batch.id}"),
        ("submitted", f"{local_time(batch.created)} by {batch.submitter}"),
        ("finished", local_time(batch.finished) if batch.finished else ""),
        ("jobs", by_state(batch.counts)),
        ("progress", f"{progress(jobs):.0%}" if batch.counts.active else ""),
        ("warnings", warnings(batch.warnings) if batch.warnings else ""),
    ]
    return [(name, value) for name, value in rows if value]


def by_state(counts: Counts) -> str:
    return ", ".join(f"{number} {state}" for state, number in counts.model_dump().items() if number)


def total(counts: Counts) -> int:
    return sum(counts.model_dump().values())


def progress(jobs: Sequence[Job]) -> float:
    """The share of jobs that have ended."""
    return sum(not job.state.active for job in jobs) / len(jobs) if jobs else 1.0


def _style(batch: Batch) -> str:
    if batch.counts.failed or batch.counts.rejected:
        return "red"
    if batch.counts.active:
        return "cyan"
    return "yellow" if batch.warnings or batch.counts.cancelled else "green"
