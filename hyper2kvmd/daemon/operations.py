"""The operations of the control socket. Its routes, the rights of callers, the client and OpenAPI are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from pydantic import TypeAdapter

from hyper2kvmd.daemon.wire import (
    BatchesQuery,
    BatchReportQuery,
    EventsQuery,
    JobsQuery,
    NoBody,
    NoQuery,
    PriorityBody,
    RateAnswer,
    ReportQuery,
    Status,
    SubmissionBody,
    TestBody,
)
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import Batch, Job, JobEvent
from hyper2kvmd.model.notifications import Tried

Query = TypeVar("Query", bound=Frozen)
Body = TypeVar("Body", bound=Frozen)
Answer = TypeVar("Answer")


class Role(IntEnum):
    """Who may use an operation. Each role includes those before it."""

    NOBODY = 0
    SUBMITTER = 1
    """Whoever may write to incoming/. Jobs and batches of others are unknown to them."""
    OPERATOR = 2
    """root, the daemon's user, and members of its group."""


class Text(str):
    """An answer that is no JSON."""


@dataclass(frozen=True)
class Operation(Generic[Query, Body, Answer]):
    """One method of one path."""

    name: str
    """Of the method of `Client`."""
    method: Literal["GET", "POST"]
    path: str
    summary: str
    query: type[Query]
    body: type[Body]
    answer: type[Answer]
    who: Role = Role.SUBMITTER
    created: bool = False
    """Whether it answers 201 for something new, and 200 for what was there."""
    paged: bool = False
    """Whether the answer is a part of a list, with the length of all in `Total-Count`."""
    media: tuple[str, ...] = ("application/json",)
    refusals: tuple[int, ...] = ()
    """HTTP statuses of its own refusals, besides those that every operation has."""

    @cached_property
    def adapter(self) -> TypeAdapter[Answer]:
        return TypeAdapter(self.answer)


JOB, UNKNOWN, CONFLICT, INVALID = "/v1/jobs/{id}", 404, 409, 422

GET_STATUS = Operation("status", "GET", "/v1/status", "The state of the daemon", NoQuery, NoBody, Status)
GET_RATE = Operation("rate", "GET", "/v1/rate", "How fast the last conversions were", NoQuery, NoBody, RateAnswer)
LIST_JOBS = Operation("jobs", "GET", "/v1/jobs", "Jobs", JobsQuery, NoBody, tuple[Job, ...], paged=True)
SUBMIT_JOB = Operation(
    "submit_one",
    "POST",
    "/v1/jobs",
    "Submit one machine. If the same one is active, the answer is its job",
    NoQuery,
    SubmissionBody,
    Job,
    created=True,
    refusals=(CONFLICT, INVALID),
)
SUBMIT_BATCH = Operation(
    "submit",
    "POST",
    "/v1/batches",
    "Submit all machines of a text, or none of them",
    NoQuery,
    SubmissionBody,
    tuple[Job, ...],
    created=True,
    refusals=(CONFLICT, INVALID),
)
GET_JOB = Operation("job", "GET", JOB, "One job", NoQuery, NoBody, Job, refusals=(UNKNOWN,))
LIST_EVENTS = Operation(
    "events",
    "GET",
    f"{JOB}/events",
    "The events of a job, the oldest first",
    EventsQuery,
    NoBody,
    tuple[JobEvent, ...],
    refusals=(UNKNOWN,),
)
GET_REPORT = Operation(
    "report",
    "GET",
    f"{JOB}/report",
    "The published report of a job that has succeeded",
    ReportQuery,
    NoBody,
    Text,
    media=("application/json", "text/markdown"),
    refusals=(UNKNOWN,),
)


def _job_verb(name: str, summary: str) -> Operation[NoQuery, NoBody, Job]:
    return Operation(name, "POST", f"{JOB}/{name}", summary, NoQuery, NoBody, Job, refusals=(UNKNOWN, CONFLICT))


CANCEL_JOB = _job_verb("cancel", "Cancel a job. A running one ends within seconds: its answer has `cancelling`")
RETRY_JOB = _job_verb("retry", "Queue a job again that failed, was cancelled, or is held because of a failure")
HOLD_JOB = _job_verb("hold", "Hold a job until it is released: a queued one, or one that is held because of another")
RELEASE_JOB = _job_verb("release", "Allow a held job to start")
SET_PRIORITY = Operation(
    "set_priority",
    "POST",
    f"{JOB}/priority",
    "Change the priority of a waiting job. A submitter may only lower it",
    NoQuery,
    PriorityBody,
    Job,
    refusals=(UNKNOWN, CONFLICT),
)


def _queue_verb(name: str, summary: str) -> Operation[NoQuery, NoBody, Status]:
    return Operation(name, "POST", f"/v1/queue/{name}", summary, NoQuery, NoBody, Status, who=Role.OPERATOR)


PAUSE_QUEUE = _queue_verb("pause", "Start no more jobs; running jobs continue")
RESUME_QUEUE = _queue_verb("resume", "Start jobs again")
DRAIN_QUEUE = _queue_verb("drain", "Finish running jobs, then stop the daemon")
BATCH = "/v1/batches/{id}"
LIST_BATCHES = Operation(
    "batches", "GET", "/v1/batches", "Batches, the newest first", BatchesQuery, NoBody, tuple[Batch, ...], paged=True
)
GET_BATCH = Operation("batch", "GET", BATCH, "One batch", NoQuery, NoBody, Batch, refusals=(UNKNOWN,))
GET_BATCH_REPORT = Operation(
    "batch_report",
    "GET",
    f"{BATCH}/report",
    "The outcome of a batch: one line for each job",
    BatchReportQuery,
    NoBody,
    Text,
    media=("text/csv", "text/markdown"),
    refusals=(UNKNOWN,),
)
TEST_NOTIFICATIONS = Operation(
    "test_notifications",
    "POST",
    "/v1/notifications/test",
    "Send a test notification now, to one destination or to all",
    NoQuery,
    TestBody,
    tuple[Tried, ...],
    who=Role.OPERATOR,
    refusals=(UNKNOWN,),
)
GET_OPENAPI = Operation("openapi", "GET", "/v1/openapi.json", "This document", NoQuery, NoBody, dict[str, object])

AnyOperation: TypeAlias = Operation[Any, Any, Any]

OPERATIONS: tuple[AnyOperation, ...] = (
    GET_STATUS,
    GET_RATE,
    LIST_JOBS,
    SUBMIT_JOB,
    SUBMIT_BATCH,
    GET_JOB,
    LIST_EVENTS,
    GET_REPORT,
    CANCEL_JOB,
    RETRY_JOB,
    HOLD_JOB,
    RELEASE_JOB,
    SET_PRIORITY,
    LIST_BATCHES,
    GET_BATCH,
    GET_BATCH_REPORT,
    PAUSE_QUEUE,
    RESUME_QUEUE,
    DRAIN_QUEUE,
    TEST_NOTIFICATIONS,
    GET_OPENAPI,
)
