"""The report of a batch: one line for each job, as CSV for spreadsheets or as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

from hyper2kvmd.errors import sentences
from hyper2kvmd.markdown import plain
from hyper2kvmd.model.jobs import Batch, Job
from hyper2kvmd.model.results import Artifact
from hyper2kvmd.units import duration, local_time, size

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""A cell that begins so is a formula for a spreadsheet program; the last four are full-width = + - @.

Source: OWASP, CSV Injection.
"""
HEADINGS = ("job", "vm", "state", "seconds", "image_bytes", "warnings", "code", "error", "remedy", "image")
TITLES = ("Job", "VM", "State", "Duration", "Data", "Warnings", "Error and remedy", "Image")

Artifacts = Mapping[int, Artifact]


def csv_report(jobs: Sequence[Job], artifacts: Artifacts) -> str:
    """RFC 4180, with times in seconds and sizes in bytes. No cell is a formula."""
    return csv_heading() + csv_lines(jobs, artifacts)


def csv_heading() -> str:
    return f"{','.join(HEADINGS)}\r\n"


def csv_lines(jobs: Sequence[Job], artifacts: Artifacts) -> str:
    """The part of the report about these jobs."""
    text = io.StringIO()
    writer = csv.writer(text)
    for job in jobs:
        problem = job.problems[0] if job.problems else None
        error = (problem.code, problem.message, problem.hint) if problem else ("", "", "")
        made = artifacts.get(job.id)
        images = "; ".join(str(disk.path) for disk in made.disks) if made else ""
        row = (job.vm_name, job.state.value, _seconds(job), _bytes(made), job.warnings, *error, images)
        writer.writerow((job.id, *(_harmless(str(cell)) for cell in row)))
    return text.getvalue()


def markdown_heading(batch: Batch) -> str:
    """GitHub-flavoured Markdown."""
    counts = ", ".join(f"{number} {state}" for state, number in batch.counts if number) or "no jobs"
    ended = f", finished {local_time(batch.finished)}" if batch.finished else ""
    head = [
        f"# Batch {plain(batch.name)}",
        "",
        f"Batch {batch.id} of {plain(batch.submitter)}, submitted {local_time(batch.created)}{ended}: {counts}.",
        "",
        _line(TITLES),
        _line(("---",) * len(TITLES)),
        "",
    ]
    return "\n".join(head)


def markdown_lines(jobs: Sequence[Job], artifacts: Artifacts) -> str:
    """The part of the report about these jobs."""
    return "".join(f"{_line(_cells(job, artifacts.get(job.id)))}\n" for job in jobs)


def _cells(job: Job, made: Artifact | None) -> Iterator[str]:
    seconds = _seconds(job)
    yield from (str(job.id), plain(job.vm_name), job.state.value)
    yield duration(float(seconds)) if seconds else ""
    yield size(int(_bytes(made))) if made else ""
    yield str(job.warnings)
    yield "; ".join(f"{plain(sentences(one.message, one.hint))} ({one.code})" for one in job.problems)
    yield "; ".join(plain(str(disk.path)) for disk in made.disks) if made else ""


def _seconds(job: Job) -> str:
    """Of the last attempt."""
    if job.started is None or job.finished is None:
        return ""
    return f"{max(0.0, (job.finished - job.started).total_seconds()):.1f}"


def _bytes(made: Artifact | None) -> str:
    return str(sum(disk.file_bytes for disk in made.disks)) if made else ""


def _harmless(cell: str) -> str:
    """Not a formula. Spreadsheet programs show what follows the apostrophe."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def _line(cells: Iterator[str] | Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
