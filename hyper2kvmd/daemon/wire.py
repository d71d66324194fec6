"""Frozen types that the control socket exchanges as JSON, besides `model.Job` and `model.JobEvent`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StringConstraints, WithJsonSchema

from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import MAX_ID, NOBODY_AT_ALL, Counts, PastRate, Problem, Sort, Stage, State
from hyper2kvmd.model.notifications import DestinationState

MAX_TEXT = 64 * 1024
"""Bytes of one migration YAML, from the spool or the control socket."""
MAX_LISTED = 1000
"""Jobs in one answer. Each may hold a migration of MAX_TEXT."""
ABSOLUTE = {"type": "string", "pattern": r"^/[^\x00]*$"}


def _written_out(value: object) -> object:
    """Refuse numbers, which pydantic takes for seconds since 1970."""
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d[Tt ]", value):
        raise ValueError("Write a time as in 2026-01-31T22:00:00+01:00")
    return value


def _whole(value: object) -> object:
    """For JSON, 5.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("Give an absolute path")
    return path


def _in_utc(value: datetime) -> datetime:
    """Python's calendar ends with the year 9999."""
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time is out of range") from error


Id = Annotated[int, Field(ge=1, le=MAX_ID)]
Moment = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]
Name = Annotated[str, StringConstraints(pattern=r"^[^/\x00-\x1f]{1,255}$")]


# ---------------------------------------------------------------- queries


class NoQuery(Frozen):
    """An operation without a query."""


class Page(Frozen):
    """Which part of a list is answered. The header `Total-Count` has the number of all items."""

    limit: int = Field(default=MAX_LISTED, ge=1)
    """At most 1000 are answered."""
    offset: int = Field(default=0, ge=0, le=MAX_ID)


class JobsQuery(Page):
    """Query of `GET /v1/jobs`. A job must match all keys; keys that are tuples may be repeated."""

    state: tuple[State, ...] = ()
    since: Moment | None = None
    """Jobs submitted then or later."""
    batch: Id | None = None
    """The number of a batch."""
    mine: bool = False
    """Only jobs of the caller."""
    warned: bool = False
    """Only jobs with warnings."""
    id: tuple[Id, ...] = ()
    vm: Name | None = None
    sort: Sort = Sort.NEWEST


class EventsQuery(Frozen):
    """Query of `GET /v1/jobs/{id}/events`."""

    after: int = Field(default=0, ge=0, le=MAX_ID)
    """Only events with a higher number."""


class ReportQuery(Frozen):
    """Query of `GET /v1/jobs/{id}/report`."""

    format: Literal["json", "markdown"] = "json"


class BatchesQuery(Page):
    """Query of `GET /v1/batches`."""

    mine: bool = False
    """Only batches of the caller."""
    active: bool | None = None
    """Only batches with active jobs, or only those without."""


class BatchReportQuery(Frozen):
    """Query of `GET /v1/batches/{id}/report`."""

    format: Literal["csv", "markdown"] = "csv"


# ---------------------------------------------------------------- bodies


class NoBody(Frozen):
    """An operation without a body; `{}` is one as well."""


class SubmissionBody(Frozen):
    """Body of `POST /v1/jobs`. Relative paths in `text` are resolved against `base`, or refused without one."""

    text: str
    base: Annotated[Path, AfterValidator(_absolute), WithJsonSchema(ABSOLUTE)] | None = None
    name: Name
    """The VM's name where the text gives none: the file's stem."""


class PriorityBody(Frozen):
    """Body of `POST /v1/jobs/{id}/priority`."""

    priority: Annotated[int, Field(ge=0, le=9), BeforeValidator(_whole)]
    """Higher ones start first."""


# ---------------------------------------------------------------- answers


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
    submitter_uid: int = NOBODY_AT_ALL
    bytes_done: int | None = None
    """Of the current step; None if it has no measure in bytes."""
    bytes_total: int | None = None
    bytes_per_second: float | None = None
    """In the last 10 s."""
    eta_seconds: float | None = None
    """Until the end of the current step; None if it is not known."""


FileSystemRole = Literal["conversion", "output", "state", "spool"]


class FileSystemUse(Frozen):
    """The space of a file system that the daemon writes to. Sizes are bytes."""

    roles: tuple[FileSystemRole, ...]
    """The configured directories that are on it."""
    path: Path
    """The first of these directories."""
    size: int
    free: int
    reserve: int
    """Kept free by `space_reserve`."""
    promised: int
    """Promised to running jobs and not yet written."""


class FileSystemFault(Frozen):
    """A directory of the configuration that the daemon cannot write to."""

    role: FileSystemRole
    path: Path
    reason: str
    since: datetime


class IgnoredFile(Frozen):
    """A file in incoming/ that is no submission."""

    name: str
    reason: str
    since: datetime
    owner_uid: int
    """Submitters see their own ones only."""


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
    hostname: str = ""
    started: datetime | None = None
    """When the daemon was started; None from an earlier version."""
    slots_used: int = 0
    """Of `max_concurrent_jobs`."""
    file_systems: tuple[FileSystemUse, ...] = ()
    faults: tuple[FileSystemFault, ...] = ()
    """Directories that cannot be written to. Jobs that need them wait."""
    waiting_for_space: int = 0
    """Jobs for which there is too little space. The note of each one says where."""
    ignored: tuple[IgnoredFile, ...] = ()
    """The oldest ones."""
    ignored_count: int = 0
    """All files in incoming/ that are no submissions."""
    notifications: tuple[DestinationState, ...] = ()
    """The destinations of the configuration, for operators only."""


class TestBody(Frozen):
    """Body of `POST /v1/notifications/test`."""

    destination: Name | None = None
    """None: all."""


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
