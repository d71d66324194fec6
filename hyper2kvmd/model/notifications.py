"""Notifications: what they are about, where they go, and what they say."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field

from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import Counts, Job, Problem, Stage, State

Occasion: TypeAlias = Literal["success", "warning", "failure", "held", "stall", "space", "batch"]
OCCASIONS: tuple[Occasion, ...] = get_args(Occasion)
Kind: TypeAlias = Literal["webhook", "mail", "hook_dir"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ADDRESS = r"^[A-Za-z0-9_][A-Za-z0-9_+=.~-]*(@[A-Za-z0-9][A-Za-z0-9.-]*)?$"
"""A mail address without comments and quotes, or the name of a local user."""


def _as_tuple(value: object) -> Any:
    return (value,) if isinstance(value, str) else value


class Destination(Frozen):
    """Where notifications go: one of a webhook, mail addresses and a directory of programs."""

    name: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$")
    """Empty: the kind is the name."""
    webhook: str | None = Field(default=None, pattern=r"^https?://[^\s/]\S*$")
    secret_file: Path | None = None
    """Holds the key of the webhook's signature."""
    mail: Annotated[
        tuple[Annotated[str, Field(pattern=ADDRESS, max_length=254)], ...],
        BeforeValidator(_as_tuple),
        Field(max_length=20),
    ] = ()
    from_: str | None = Field(default=None, pattern=ADDRESS, max_length=254, alias="from")
    """The sender of mail; None is the service user."""
    hook_dir: Path | None = None
    on: Annotated[tuple[Occasion, ...], BeforeValidator(_as_tuple)] = ("failure", "batch")

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Those that are given. A valid destination has one."""
        return tuple(kind for kind in KINDS if getattr(self, kind))

    @property
    def label(self) -> str:
        """Its name in commands, metrics and the database."""
        return self.name or (self.kinds or KINDS)[0]


class JobFacts(Frozen):
    """A job as it was at the time of a notification. See `Job`."""

    id: int
    vm_name: str
    state: State
    stage: Stage | None
    attempt: int
    submitter: str
    batch: str | None
    note: str
    problems: tuple[Problem, ...]
    warnings: int
    created: datetime
    started: datetime | None
    finished: datetime | None

    @classmethod
    def of(cls, job: Job) -> JobFacts:
        return cls(**{name: getattr(job, name) for name in cls.model_fields})


class BatchFacts(Frozen):
    """A batch as it was at the time of a notification."""

    id: int
    name: str
    submitter: str
    created: datetime
    counts: Counts
    warnings: int


class Notification(Frozen):
    """What happened. Programs read it as JSON."""

    id: str
    """The same in every delivery of this notification, which may arrive more than once."""
    event: Occasion | Literal["test"]
    at: datetime
    host: str = ""
    summary: str
    """One line for a person. Parts of it come from submitters and guests."""
    job: JobFacts | None = None
    batch: BatchFacts | None = None
    batch_report: str | None = None
    """CSV with one line for each job of the batch; None if the batch is too large or forgotten."""


class Outgoing(Frozen):
    """A notification for one destination, as it is on record."""

    number: int
    destination: str
    notification: Notification
    tries: int
    created: datetime


class DestinationState(Frozen):
    """How the deliveries to one destination are going."""

    destination: str
    pending: int
    """Notifications that are not delivered yet."""
    last_error: str = ""
    """Of the pending notifications, the error of the latest try."""
    oldest: datetime | None = None
    """When the oldest pending notification was created."""


class Tried(Frozen):
    """The outcome of one try to deliver a test notification."""

    destination: str
    delivered: bool
    problem: Problem | None = None
