"""Shows jobs and the daemon to people; `--json` prints the types themselves instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hyper2kvmd.cli import job_table
from hyper2kvmd.cli.output import Output, more_about
from hyper2kvmd.cli.stage_times import stage_times, waiting_since
from hyper2kvmd.cli.table import Cell, Column, Line, laid_out
from hyper2kvmd.units import about, duration, local_time, size

if TYPE_CHECKING:
    from hyper2kvmd.daemon.wire import FileSystemUse, RunningJob, Status
    from hyper2kvmd.model.guest import Change
    from hyper2kvmd.model.jobs import Job, JobEvent, Problem

WARNED, NOTED, RESERVED = "warned", "noted", "space-reserved"
CANCELLED = ("cancel-requested", "cancelled")
WAITS: Mapping[str, str] = {
    "slot": "a slot: as many jobs run as max_concurrent_jobs allows",
    "space": "space",
    "window": "its window",
    "time": "its not_before",
    "after": "the jobs that it names in after",
    "retry": "another attempt",
    "source": "its source: as many jobs read from that file system as max_per_source allows",
    "storage": "a directory that cannot be written to: `h2kvmctl status` names it",
    "operator": "an operator, who holds it",
    "remedy": "an operator, who corrects what made it fail",
    "pause": "`h2kvmctl resume`: the queue is paused",
}
STAGES = (Column("stage", 9), Column("attempt", 1), Column("started", 5), Column("duration", 8), Column("state", 7))
NAME_WIDTH = 13


def job(output: Output, one: Job, events: Sequence[JobEvent], changes: Sequence[Change] = ()) -> None:
    """`changes` are the repairs of its published report."""
    now = datetime.now(UTC)
    for name, value, style in _facts(one, events, now):
        for line in value:
            output.paragraph(f"{name:<{NAME_WIDTH}}{line}", style, indent=NAME_WIDTH)
            name = ""
    _stages(output, events, now)
    _section(output, "repaired", (f"{change.path}: {change.summary}" for change in changes))
    _section(output, "warnings", dict.fromkeys(_texts(events, WARNED)), "yellow")
    _section(output, "notes", dict.fromkeys([*map(str, one.notes), *_texts(events, NOTED)]))
    _problems(output, one.problems, one.spool_name or "the YAML")


def _facts(one: Job, events: Sequence[JobEvent], now: datetime) -> list[tuple[str, tuple[str, ...], str]]:
    elapsed = job_table.elapsed(one, now)
    rows: list[tuple[str, tuple[str, ...], str]] = [
        ("job", (str(one.id),), ""),
        ("vm", (one.vm_name,), ""),
        ("state", (job_table.state(one),), job_table.state_style(one)),
        ("stage", (_stage(one),), ""),
        ("waiting for", tuple(_waiting(one, events, now)), ""),
        ("after", (", ".join(one.migration.after) if one.migration else "",), ""),
        ("window", (_window(one),), ""),
        ("not before", (_when(one.migration.not_before if one.migration else None),), ""),
        ("image" if one.state.value == "succeeded" else "note", (one.note,), ""),
        ("batch", (one.batch or "",), ""),
        ("attempt", (str(one.attempt),), ""),
        ("priority", (job_table.priority(one),), ""),
        ("submitted", (f"{_when(one.created)} by {one.submitter}" if one.submitter else _when(one.created),), ""),
        ("spool file", (one.spool_name or "",), ""),
        ("started", (_when(one.started),), ""),
        ("finished", (_when(one.finished),), ""),
        ("cancelled", (_cancelled(one, events),), ""),
        ("duration", ("" if elapsed is None else duration(elapsed),), ""),
        ("space", (_space(one, events),), ""),
        ("source", tuple(map(str, one.migration.sources)) if one.migration else (), ""),
    ]
    return [row for row in rows if any(row[1])]


def _stage(one: Job) -> str:
    if one.stage is None:
        return ""
    return f"{one.stage.value} {one.progress:.0%}" if one.progress and one.state.active else one.stage.value


def _window(one: Job) -> str:
    window = one.migration.window if one.migration else None
    if window is None:
        return ""
    return f"{' '.join(window.days)}, {window.from_} to {window.to}{f', {window.timezone}' if window.timezone else ''}"


def _waiting(one: Job, events: Sequence[JobEvent], now: datetime) -> Iterator[str]:
    if one.waiting_for is None or not one.state.active:
        return
    from hyper2kvmd.start_times import expected_start

    yield ", ".join(filter(None, (WAITS[one.waiting_for.value], expected_start(one))))
    if since := waiting_since(events):
        yield f"since {local_time(since)} ({duration((now - since).total_seconds())})"


def _cancelled(one: Job, events: Sequence[JobEvent]) -> str:
    found = [event.message for event in events if event.kind in CANCELLED and event.message]
    return f"by {found[-1]}" if found and one.state.value == "cancelled" else ""


def _space(one: Job, events: Sequence[JobEvent]) -> str:
    if one.reserved_bytes:
        return f"{size(one.reserved_bytes)} reserved"
    found = [event for event in events if event.kind == RESERVED]
    return f"{found[-1].message} at {local_time(found[-1].at)}" if found else ""


def _stages(output: Output, events: Sequence[JobEvent], now: datetime) -> None:
    times = stage_times(events)
    if not times:
        return
    rows: list[Line] = [
        (
            Cell(time.stage),
            Cell(str(time.attempt)),
            Cell(local_time(time.started)),
            Cell(duration(((time.ended or now) - time.started).total_seconds())),
            Cell(time.outcome or "running", "cyan" if not time.outcome else "red" if time.outcome == "failed" else ""),
        )
        for time in times
    ]
    output.line("")
    output.rows(laid_out(STAGES, rows, output.width))


def _section(output: Output, title: str, lines: Iterable[str], style: str = "") -> None:
    listed = list(lines)
    if listed:
        output.line("")
        output.line(title, style="bold")
    for line in listed:
        output.paragraph(f"  {line}", style, indent=4)


def _texts(events: Sequence[JobEvent], kind: str) -> Iterator[str]:
    return (event.message for event in events if event.kind == kind)


def _problems(output: Output, problems: Sequence[Problem], file: str) -> None:
    """Each with its remedy on a line of its own. `file` is that of a problem that names none."""
    if problems:
        output.line("")
        output.line("error" if len(problems) == 1 else "errors", style="bold")
    for one in problems:
        fact = f"{one.file or file}:{one.line}:{one.column}: {one.message}" if one.line else one.message
        output.paragraph(f"  {fact} [{one.code}]", "red", indent=4)
        output.paragraph(f"  {one.hint}.", indent=4)
    if problems and output.width is not None:
        output.line(more_about(problems[0].code), style="dim")


def status(output: Output, now: Status) -> None:
    counts = now.counts.model_dump()
    output.facts(
        [
            ("daemon", f"{now.state}, version {now.version}{f', on {now.hostname}' if now.hostname else ''}"),
            *([("started", local_time(now.started))] if now.started else []),
            ("jobs", ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none"),
            *([("", f"{now.waiting_for_space} waiting for space")] if now.waiting_for_space else []),
            ("slots", f"{len(now.running)} of {now.max_concurrent_jobs} in use"),
            ("space", f"{size(now.conversion_free_bytes)} free in {now.conversion_dir}"),
            ("", f"{size(now.conversion_reserved_bytes)} of it reserved"),
            *(("", _file_system(one)) for one in now.file_systems if "conversion" not in one.roles),
            ("confinement", "Landlock" if now.confinement_available else "missing: this kernel has no Landlock"),
            *_undelivered(now),
        ]
    )
    for fault in now.faults:
        output.line(f"{fault.role}_dir {fault.path} cannot be written to: {fault.reason}", style="red")
    for one in now.running:
        output.line(f"job {one.id}  {one.vm_name}  {running(one)}")
    if now.ignored_count:
        output.line(f"files in incoming/ that are ignored: {now.ignored_count}", style="yellow")
    for file in now.ignored:
        output.line(f"  {file.name}: {file.reason}")


def _undelivered(now: Status) -> Iterator[tuple[str, str]]:
    """For each destination with undelivered notifications: their number and the last error."""
    for one in now.notifications:
        if one.pending:
            since = f", the oldest from {local_time(one.oldest)}" if one.oldest else ""
            error = f": {one.last_error}" if one.last_error else ""
            yield "notifications", f"{one.pending} undelivered to {one.destination}{since}{error}"


def _file_system(one: FileSystemUse) -> str:
    return f"{size(one.free)} free in {one.path} ({', '.join(one.roles)})"


def running(one: RunningJob) -> str:
    """`convert: Copying 40% (1.2 GiB of 3.0 GiB), 120.0 MiB/s, about 4 min left`."""
    stage = one.stage.value if one.stage else "starting"
    words = [f"{stage}: {one.step}" if one.step else stage]
    if one.progress is not None:
        words.append(f"{one.progress:.0%}")
    if one.bytes_done is not None and one.bytes_total:
        words.append(f"({size(one.bytes_done)} of {size(one.bytes_total)})")
    return ", ".join([" ".join(words), *pace(one)])


def pace(one: RunningJob) -> Iterator[str]:
    if one.bytes_per_second:
        yield f"{size(round(one.bytes_per_second))}/s"
    if one.eta_seconds is not None:
        yield f"{about(one.eta_seconds)} left"


def event_line(event: JobEvent) -> str:
    return f"{_when(event.at)}  {event.kind}{f': {event.message}' if event.message else ''}"


def _when(moment: datetime | None) -> str:
    return local_time(moment) if moment else ""
