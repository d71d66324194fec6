"""A job of the queue: its states, stages, events and problems."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.frozen import Frozen

MAX_ID = 2**31 - 1
"""PostgreSQL's largest number of a row: no job, batch or event has a higher one."""
NOBODY_AT_ALL = -1
"""A uid that owns nothing, for an unknown submitter."""


class State(StrEnum):
    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"

    @property
    def active(self) -> bool:
        return self in (State.QUEUED, State.HELD, State.RUNNING)

    @property
    def said(self) -> str:
        """As the predicate of a sentence: `is queued`, `has succeeded`, `was cancelled`."""
        if self.active:
            return f"is {self.value}"
        return f"{'has' if self in (State.SUCCEEDED, State.FAILED) else 'was'} {self.value}"


WARNED = "warned"
"""The kind of an event that is a warning of the worker."""
NOTED = "noted"
"""The kind of an event that is a note of the worker: information about the migration."""


class WaitingFor(StrEnum):
    """What a queued or held job waits for."""

    SLOT = "slot"
    """Fewer running jobs: `max_concurrent_jobs`."""
    SPACE = "space"
    WINDOW = "window"
    """The next opening of its `window`."""
    TIME = "time"
    """Its `not_before`."""
    AFTER = "after"
    """Jobs that it names in `after`."""
    RETRY = "retry"
    """The delay before another attempt."""
    SOURCE = "source"
    """Fewer running jobs that read from the same file system: `max_per_source`."""
    STORAGE = "storage"
    """A directory that it needs and that cannot be written to."""
    OPERATOR = "operator"
    """A person who holds it."""
    REMEDY = "remedy"
    """A person who corrects what made it fail, and retries it."""
    PAUSE = "pause"
    """The end of the queue's pause."""


class Sort(StrEnum):
    """The order of a list of jobs."""

    NEWEST = "newest"
    OLDEST = "oldest"
    START = "start"
    """As the queue would start them."""
    NAME = "name"
    FINISHED = "finished"
    """Those that finished last come first, unfinished ones at the end."""


class Stage(StrEnum):
    PLAN = "plan"
    CONVERT = "convert"
    REPAIR = "repair"
    VERIFY = "verify"
    PUBLISH = "publish"
    REGISTER = "register"


IMAGE_IN_DOUBT = frozenset({"content-differs", "disk-write-failed", "exporter-failed", "image-damaged"})
"""Errors after which an image may lack data that was written to it: the next attempt converts again."""
CORRECTABLE = frozenset(
    {
        *("output-exists", "domain-exists", "volume-exists", "hook-not-allowed", "key-unusable", "volume-locked"),
        *("source-missing", "source-unreadable", "ova-file-missing", "vmx-disk-missing"),
    }
)
"""Permanent errors that a person can correct without another source: a retry goes on with the image."""


LACKS_SPACE = frozenset({"disk-full", "space-short"})
"""Errors that end by themselves when there is space: the job waits for it, and no try has failed."""


def leaves_no_image(kind: str, code: str) -> bool:
    """Whether an attempt that ended with such an error leaves no image that the next one can use."""
    return code in IMAGE_IN_DOUBT or (kind == "permanent" and code not in CORRECTABLE)


class Problem(Frozen):
    """The data of an `errors.Explained`, for events, rows and `--json`."""

    code: str
    message: str
    hint: str
    kind: Literal["retry", "operator", "permanent"]
    key: str | None = None
    line: int | None = None
    column: int | None = None
    file: str | None = None
    """The file with that line, if a migration was read from several."""


class Job(Frozen):
    """A row of the queue. `attempt` fences claims: each increments it, and every later write names it."""

    id: int
    state: State
    vm_name: str
    priority: int
    attempt: int = 0
    migration: Migration | None = None
    content_key: str
    spool_name: str | None = None
    submitter: str = ""
    submitter_uid: int = NOBODY_AT_ALL
    stage: Stage | None = None
    progress: float = Field(default=0.0, ge=0.0, le=1.0)
    note: str = ""
    problems: tuple[Problem, ...] = ()
    warnings: int = 0
    """Different warnings of all attempts."""
    notes: tuple[Concern, ...] = ()
    """Keys of its migration YAML that have no effect here."""
    batch: str | None = None
    """The name of its batch."""
    batch_id: int | None = None
    waiting_for: WaitingFor | None = None
    """Of a queued or held job."""
    cancelling: bool = False
    """Its cancellation was requested while it was running."""
    reserved_bytes: int = 0
    created: datetime
    not_before: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None

    @property
    def unattended(self) -> bool:
        """Nothing more happens to it before a person acts: it has ended, or is held because of a failure."""
        return not self.state.active or self.waiting_for is WaitingFor.REMEDY


class JobEvent(Frozen):
    """One transition of a job, recorded together with the change itself."""

    id: int
    job_id: int
    at: datetime
    attempt: int
    kind: str
    """`submitted`, `claimed`, `stage-started`, `stage-finished`, `requeued`, `succeeded` and the like."""
    message: str = ""


class JobFilter(Frozen):
    """Which jobs a list shows: those that meet every condition that is given."""

    states: tuple[State, ...] = ()
    since: datetime | None = None
    """Not finished before then."""
    batch_id: int | None = None
    submitter_uid: int | None = None
    warned: bool = False
    """Only jobs with warnings."""
    ids: tuple[int, ...] = ()
    vm_name: str | None = None


class PastRate(Frozen):
    """How fast the last conversions on this host were."""

    bytes_per_second: float = Field(gt=0)
    """The median of these conversions, in bytes of the guest's data."""
    conversions: int = Field(gt=0)


class Counts(Frozen):
    """Jobs by state."""

    queued: int = 0
    held: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    rejected: int = 0

    @property
    def active(self) -> int:
        return self.queued + self.held + self.running


class Batch(Frozen):
    """Jobs of one submitter that were submitted under one name."""

    id: int
    name: str
    submitter: str
    submitter_uid: int
    created: datetime
    finished: datetime | None = None
    """When its last job ended; None while any of them is active."""
    counts: Counts
    warnings: int = 0
    """Of all its jobs."""


class Work(Frozen):
    """What the daemon did in one hour."""

    hour: datetime
    bytes_read: int = 0
    bytes_written: int = 0
    succeeded: int = 0
    failed: int = 0
