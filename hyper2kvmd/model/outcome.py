"""How a submission ended, for the person who submitted it: the files beside a YAML in the spool."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import Job, Problem, Stage, State
from hyper2kvmd.model.results import Finished, PublishedDisk, Registration

WITH_CODE = re.compile(r"(?P<message>.*) \[(?P<code>[a-z0-9]+(?:-[a-z0-9]+)+)\]", re.DOTALL)
"""A concern as it was logged."""


class Remark(Frozen):
    """A warning or a note of a job."""

    code: str | None = None
    """None for a warning about the guest that has no code."""
    message: str
    hint: str = ""
    """Empty if the remedy is in the message."""

    def __str__(self) -> str:
        return str(Concern(code=self.code, message=self.message, hint=self.hint)) if self.code else self.message


class Ending(Frozen):
    """What is on record about a finished job."""

    job: Job
    seconds: dict[Stage, float]
    """Of the stages that are finished."""
    finished: Finished
    """The products that remain."""
    warned: tuple[str, ...]
    """The different warnings of all attempts, the first one first."""
    cancelled_by: str = ""

    def warnings(self) -> tuple[Remark, ...]:
        known = {str(concern): concern for concern in self._concerns()}
        return tuple(_warning(text, known.get(text)) for text in self.warned)

    def notes(self) -> tuple[Remark, ...]:
        return tuple(_remark(concern) for concern in self._concerns() if concern.level == "information")

    def _concerns(self) -> Iterator[Concern]:
        yield from self.job.notes
        yield from self.finished.plan.concerns if self.finished.plan else ()
        yield from self.finished.guest.concerns if self.finished.guest else ()


def _warning(text: str, concern: Concern | None) -> Remark:
    if concern is not None:
        return _remark(concern)
    found = WITH_CODE.fullmatch(text)
    return Remark(message=text) if found is None else Remark.model_validate(found.groupdict())


def _remark(concern: Concern) -> Remark:
    return Remark(code=concern.code, message=concern.message, hint=concern.hint)


class MachineOutcome(Frozen):
    """What became of one machine of the file."""

    job_id: int
    vm_name: str
    state: State
    attempts: int
    started: datetime | None
    finished: datetime | None
    stage: Stage | None
    """The last stage that was started; None if none was, and after success."""
    seconds: dict[Stage, float]
    images: tuple[PublishedDisk, ...]
    reports: tuple[Path, ...]
    registration: Registration | None
    warnings: tuple[Remark, ...]
    notes: tuple[Remark, ...]
    problems: tuple[Problem, ...]
    cancelled_by: str
    kept: str
    """What a retry can continue from, when this file was written; empty for nothing."""

    @staticmethod
    def of(ending: Ending) -> MachineOutcome:
        job, artifact = ending.job, ending.finished.artifact
        return MachineOutcome(
            job_id=job.id,
            vm_name=job.vm_name,
            state=job.state,
            attempts=job.attempt,
            started=job.started,
            finished=job.finished,
            stage=job.stage,
            seconds=ending.seconds,
            images=artifact.disks if artifact else (),
            reports=(artifact.report_json, artifact.report_markdown) if artifact else (),
            registration=ending.finished.registration,
            warnings=ending.warnings(),
            notes=ending.notes(),
            problems=job.problems,
            cancelled_by=ending.cancelled_by,
            kept="" if job.state is State.SUCCEEDED else job.note,
        )


class Outcome(Frozen):
    """`done/NAME.result.json` and `failed/NAME.reason.json`.

    The second has the fields of a `Rejection` too, so that one program can read all reasons.
    """

    version: str
    """Of the daemon that wrote it."""
    file: str
    """The name of the YAML when it was dropped."""
    job_id: int
    """Of the machine that decides about the file: the first one without success, else the first one.

    State, problems and what follows them are those of this machine.
    """
    state: State
    submitter: str
    submitted: datetime
    problems: tuple[Problem, ...]
    attempts: int
    stage: Stage | None
    cancelled_by: str
    kept: str
    machines: tuple[MachineOutcome, ...]
    """All machines of the file, with the one above among them."""

    @staticmethod
    def of(version: str, file: str, keeper: Job, endings: Iterable[Ending]) -> Outcome:
        machines = tuple(MachineOutcome.of(ending) for ending in endings)
        decisive = next(machine for machine in machines if machine.job_id == keeper.id)
        return Outcome(
            version=version,
            file=file,
            job_id=keeper.id,
            state=keeper.state,
            submitter=keeper.submitter,
            submitted=keeper.created,
            problems=decisive.problems,
            attempts=decisive.attempts,
            stage=decisive.stage,
            cancelled_by=decisive.cancelled_by,
            kept=decisive.kept,
            machines=machines,
        )


def warnings_said(number: int) -> str:
    """` with 2 warnings`; empty for none."""
    return f" with {number} warning{'s' if number > 1 else ''}" if number else ""
