"""What the page of one job shows, from its record: the timeline of its stages, its facts, its warnings and its log.

Everybody who reaches `metrics_listen` can read the page. docs/explanation/security.md lists what it does not show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from hyper2kvmd import units
from hyper2kvmd.daemon.pages.reported import Reported
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import WARNED, Job, JobEvent, Stage, State
from hyper2kvmd.model.results import Finished

EVENTS_SHOWN = 100
MACHINE = "machine"
"""The kind of events that describe the new machine, with its identities. The report on the page has the rest."""


class StageRow(Frozen):
    name: Stage
    state: str
    look: str
    """The class of the stylesheet: a state of jobs."""
    began: datetime | None = None
    seconds: float | None = None
    result: str = ""


class JobView(Frozen):
    job: Job
    facts: tuple[tuple[str, str], ...]
    stages: tuple[StageRow, ...]
    warnings: tuple[str, ...]
    events: tuple[JobEvent, ...]
    earlier: int
    """Events that are not shown because newer ones are."""


def of_job(job: Job, events: Sequence[JobEvent], finished: Finished, reported: Reported | None = None) -> JobView:
    """`reported` is the report of a job that has one: its record has no details any more."""
    shown = [_without_path(event) for event in events if event.kind != MACHINE]
    return JobView(
        job=job,
        facts=tuple(_facts(job, finished, reported)),
        stages=tuple(_stage(stage, job, events, _result(stage, finished, reported)) for stage in Stage),
        warnings=tuple(dict.fromkeys(event.message for event in events if event.kind == WARNED)),
        events=tuple(reversed(shown[-EVENTS_SHOWN:])),
        earlier=max(0, len(shown) - EVENTS_SHOWN),
    )


def _without_path(event: JobEvent) -> JobEvent:
    """The event of a success names the image."""
    return event.with_changes(message="") if event.kind == State.SUCCEEDED else event


def _facts(job: Job, finished: Finished, reported: Reported | None) -> Iterator[tuple[str, str]]:
    yield "Submitted", units.local_time(job.created) + (f" by {job.submitter}" if job.submitter else "")
    if job.started:
        yield "First start", units.local_time(job.started)
    if job.finished:
        yield "Finished", units.local_time(job.finished)
    if job.state is not State.REJECTED:
        yield "Priority", str(job.priority)
    yield "Attempts", str(job.attempt)
    if job.migration is not None:
        yield "Target", job.migration.target
        yield "Proof", job.migration.verify
    if reported is not None:
        return
    if finished.plan is not None and finished.plan.disks:
        yield "Disks", ", ".join(units.size(disk.virtual_size) for disk in finished.plan.disks)
        yield "Firmware", finished.plan.firmware
    if finished.guest is not None and finished.guest.os_name:
        yield "Guest", finished.guest.os_name


def _stage(stage: Stage, job: Job, events: Sequence[JobEvent], result: str) -> StageRow:
    began = _last(events, "stage-started", stage)
    ended = _last(events, "stage-finished", stage)
    if began is None:
        return StageRow(name=stage, state="not started", look="")
    if ended is not None and ended.id > began.id:
        seconds = (ended.at - began.at).total_seconds()
        look = State.SUCCEEDED.value
        return StageRow(name=stage, state="finished", look=look, began=began.at, seconds=seconds, result=result)
    if job.stage is not stage:
        return StageRow(name=stage, state="not started", look="")
    if job.state is State.RUNNING:
        seconds = (datetime.now(began.at.tzinfo) - began.at).total_seconds()
        return StageRow(name=stage, state="running", look=State.RUNNING.value, began=began.at, seconds=seconds)
    state = "failed" if job.state is State.FAILED else "interrupted"
    return StageRow(name=stage, state=state, look=job.state.value, began=began.at)


def _last(events: Sequence[JobEvent], kind: str, stage: Stage) -> JobEvent | None:
    return next((one for one in reversed(events) if one.kind == kind and one.message.split(" ")[0] == stage), None)


def _result(stage: Stage, finished: Finished, reported: Reported | None) -> str:
    match stage:
        case Stage.CONVERT:
            image = finished.image
            written = sum(disk.file_bytes for disk in image.disks) if image and image.disks else None
            if written is None and reported is not None:
                written = reported.written_bytes
            return "" if written is None else f"{units.size(written)} written"
        case Stage.REPAIR if reported is not None:
            return units.counted(len(reported.repairs) + reported.more, "change")
        case Stage.REPAIR if finished.guest is not None and finished.guest.os_name:
            return units.counted(len(finished.guest.changes), "change")
        case Stage.VERIFY if finished.verdict is not None:
            return f"{finished.verdict.level}: passed"
        case Stage.REGISTER if finished.registration is not None:
            return "defined" if finished.registration.defined else "ready to be defined"
    return ""
