"""Frozen types that the control socket exchanges as JSON, besides `model.Job` and `model.JobEvent`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter

from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import Counts, Job, JobEvent, PastRate, Problem, Stage

MAX_TEXT = 64 * 1024
"""Bytes of one migration YAML, from the spool or the control socket."""

jobs_adapter: TypeAdapter[tuple[Job, ...]] = TypeAdapter(tuple[Job, ...])
events_adapter: TypeAdapter[tuple[JobEvent, ...]] = TypeAdapter(tuple[JobEvent, ...])


class SubmissionBody(Frozen):
    """Body of `POST /v1/jobs`. Relative paths in `text` are resolved against `base`, or refused without one."""

    text: str
    base: Path | None = None
    name: str = Field(pattern=r"^[^/\x00-\x1f]{1,255}$")
    """The VM's name where the text gives none: the file's stem."""


class RefusalBody(Frozen):
    """Body of every answer that is not 2xx."""

    problems: tuple[Problem, ...]


class RunningJob(Frozen):
    """A running job as its worker last reported. `progress` is that of the current step, None if it has no measure."""

    id: int
    vm_name: str
    attempt: int
    stage: Stage | None
    step: str
    progress: float | None
    started: datetime
    cancelling: bool


class Status(Frozen):
    version: str
    state: Literal["running", "paused", "draining", "stopping"]
    counts: Counts
    running: tuple[RunningJob, ...]
    max_concurrent_jobs: int
    oldest_queued: datetime | None
    conversion_dir: Path
    conversion_free_bytes: int
    conversion_reserved_bytes: int
    """Promised to running jobs and not yet written."""
    confinement_available: bool


class RateAnswer(Frozen):
    """The answer to `GET /v1/rate`."""

    rate: PastRate | None
    """None if no conversion is on record."""


class Rejection(Frozen):
    """`rejected/NAME.reason.json`: why the file next to it did not become a job."""

    file: str
    """Its name when it was dropped."""
    job_id: int | None = None
    """The rejected job on record."""
    problems: tuple[Problem, ...]
