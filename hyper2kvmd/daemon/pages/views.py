"""What the page of one job shows, from its record: the timeline of its stages, its facts, its warnings and events.

Nothing here names files of a source, addresses of network cards, or content of a guest's files: everybody who reaches
`metrics_listen` can read the page (docs/security.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from hyper2kvmd import units
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import WARNED, Job, JobEvent, Stage, State
from hyper2kvmd.model.results import Finished

EVENTS_SHOWN = 100
SHOWN = frozenset(
    {
        *("submitted", "claimed", "stage-started", "stage-finished", "requeued", "held", "released", "retried"),
        *("cancel-requested", "cancelled", "failed", "succeeded", "rejected", "duplicate", "folder-removed"),
    }
)
"""Kinds of events that are shown as such. Others may have facts about the guest."""


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


def of_job(job: Job, events: Sequence[JobEvent], finished: Finished) -> JobView:
    shown = [_without_path(event) for event in events if event.kind in SHOWN]
    return JobView(
        job=job,
        facts=tuple(_facts(job, finished)),
        stages=tuple(_stage(stage, job, events, finished) for stage in Stage),
        warnings=tuple(dict.fromkeys(event.message for event in events if event.kind == WARNED)),
        events=tuple(reversed(shown[-EVENTS_SHOWN:])),
        earlier=max(0, len(shown) - EVENTS_SHOWN),
    )


def _without_path(event: JobEvent) -> JobEvent:
    """The event of a success names the image."""
    return event.with_changes(message="") if event.kind == State.SUCCEEDED else event


def _facts(job: Job, finished: Finished) -> Iterator[tuple[str, str]]:
    yield "Submitted", units.local_time(job.created) + (f" by {job.submitter}" if job.submitter else "")
    if job.started:
        yield "First start", units.local_time(job.started)
    if job.finished:
        yield "Finished", units.local_time(job.finished)
    yield "Priority", str(job.priority)
    yield "Attempts", str(job.attempt)
    if job.migration is not None:
        yield "Target", job.migration.target
        yield "Proof", job.migration.verify
    if finished.plan is not None:
        yield "Disks", ", ".join(units.size(disk.virtual_size) for disk in finished.plan.disks) or "none on record"
        yield "Firmware", finished.plan.firmware
    if finished.guest is not None and finished.guest.os_name:
        yield "Guest", finished.guest.os_name


def _stage(stage: Stage, job: Job, events: Sequence[JobEvent], finished: Finished) -> StageRow:
    began = _last(events, "stage-started", stage)
    ended = _last(events, "stage-finished", stage)
    if began is None:
        return StageRow(name=stage, state="not started", look="")
    if ended is not None and ended.id > began.id:
        seconds, result = (ended.at - began.at).total_seconds(), _result(stage, finished)
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


def _result(stage: Stage, finished: Finished) -> str:
    match stage:
        case Stage.CONVERT if finished.image is not None and finished.image.disks:
            return f"{units.size(sum(disk.file_bytes for disk in finished.image.disks))} written"
        case Stage.REPAIR if finished.guest is not None and finished.guest.os_name:
            changes = len(finished.guest.changes)
            return f"{changes} change{'' if changes == 1 else 's'}"
        case Stage.VERIFY if finished.verdict is not None:
            return f"{finished.verdict.level}: passed"
        case Stage.REGISTER if finished.registration is not None:
            return "defined" if finished.registration.defined else "ready to be defined"
    return ""
