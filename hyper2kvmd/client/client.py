"""`Client`: one method for each operation of the control socket, with the types of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar
from urllib.parse import urlencode

from pydantic import ValidationError

from hyper2kvmd.client.connection import TIMEOUT, Reply, request
from hyper2kvmd.daemon import operations
from hyper2kvmd.daemon.operations import Body, Operation, Query
from hyper2kvmd.daemon.wire import (
    BatchesQuery,
    BatchReportQuery,
    EventsQuery,
    JobsQuery,
    NoBody,
    NoQuery,
    PriorityBody,
    ReportQuery,
    Status,
    SubmissionBody,
    TestBody,
)
from hyper2kvmd.errors import BrokenInstallation
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import Batch, Job, JobEvent, PastRate
from hyper2kvmd.model.notifications import Tried
from hyper2kvmd.socket_connection import default_socket

Item = TypeVar("Item")
Answer = TypeVar("Answer")

CREATED = 201
NO_QUERY, NO_BODY, ALL, ALL_BATCHES = NoQuery(), NoBody(), JobsQuery(), BatchesQuery()


@dataclass(frozen=True)
class Listed(Generic[Item]):
    """One page of a list."""

    items: tuple[Item, ...]
    total: int
    """The number of items on all pages."""

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Accepted:
    """The jobs of one text, in its order."""

    jobs: tuple[Job, ...]
    new: bool
    """False: they were active already, and nothing was submitted."""


class Client:
    """The daemon behind a control socket. Methods may be called from several threads.

    They raise the failures of `connection.request`, those that the daemon reports, and BrokenInstallation
    (`daemon-foreign`) for an answer that this version does not understand.
    """

    def __init__(self, socket: Path | None = None, *, timeout_seconds: float = TIMEOUT) -> None:
        """None: the socket of this host's configuration."""
        self.socket = socket or default_socket()
        self._timeout = timeout_seconds

    # ---- the daemon

    def status(self) -> Status:
        return self._ask(operations.GET_STATUS)

    def rate(self) -> PastRate | None:
        """How fast the last conversions on this host were; None if there were none."""
        return self._ask(operations.GET_RATE).rate

    def pause(self) -> Status:
        return self._ask(operations.PAUSE_QUEUE)

    def resume(self) -> Status:
        return self._ask(operations.RESUME_QUEUE)

    def drain(self) -> Status:
        return self._ask(operations.DRAIN_QUEUE)

    def test_notifications(self, destination: str | None = None) -> tuple[Tried, ...]:
        """Send a test notification now, to one destination or to all. A program may take a minute."""
        return self._ask(operations.TEST_NOTIFICATIONS, body=TestBody(destination=destination))

    def openapi(self) -> dict[str, object]:
        """The description of all operations."""
        return self._ask(operations.GET_OPENAPI)

    # ---- submitting

    def submit(self, text: str, *, name: str, base: Path | None = None) -> Accepted:
        """All machines of a migration YAML, or none of them. `name` is the VM's where the text has none.

        Relative paths are resolved against `base`.
        """
        asked = SubmissionBody(text=text, base=base, name=name)
        reply = self._send(operations.SUBMIT_BATCH, None, NO_QUERY, asked)
        return Accepted(_read(operations.SUBMIT_BATCH, reply), new=reply.status == CREATED)

    def submit_one(self, text: str, *, name: str, base: Path | None = None) -> Job:
        return self._ask(operations.SUBMIT_JOB, body=SubmissionBody(text=text, base=base, name=name))

    # ---- jobs

    def jobs(self, query: JobsQuery = ALL) -> Listed[Job]:
        """One page of jobs, the newest first unless the query says otherwise."""
        return self._list(operations.LIST_JOBS, query)

    def job(self, job_id: int) -> Job:
        return self._ask(operations.GET_JOB, job_id)

    def events(self, job_id: int, *, after: int = 0) -> Sequence[JobEvent]:
        """The events with higher numbers than `after`, the oldest first."""
        return self._ask(operations.LIST_EVENTS, job_id, query=EventsQuery(after=after))

    def report(self, job_id: int, *, format: Literal["json", "markdown"] = "json") -> str:  # noqa: A002 - the key's name
        """The text of the published report."""
        return self._text(operations.GET_REPORT, job_id, ReportQuery(format=format))

    def cancel(self, job_id: int) -> Job:
        """The job as it is now: cancelled, or running and `cancelling`."""
        return self._ask(operations.CANCEL_JOB, job_id)

    def retry(self, job_id: int) -> Job:
        return self._ask(operations.RETRY_JOB, job_id)

    def hold(self, job_id: int) -> Job:
        return self._ask(operations.HOLD_JOB, job_id)

    def release(self, job_id: int) -> Job:
        return self._ask(operations.RELEASE_JOB, job_id)

    def set_priority(self, job_id: int, priority: int) -> Job:
        return self._ask(operations.SET_PRIORITY, job_id, body=PriorityBody(priority=priority))

    # ---- batches

    def batches(self, query: BatchesQuery = ALL_BATCHES) -> Listed[Batch]:
        """One page of batches, the newest first."""
        return self._list(operations.LIST_BATCHES, query)

    def batch(self, batch_id: int) -> Batch:
        return self._ask(operations.GET_BATCH, batch_id)

    def batch_report(self, batch_id: int, *, format: Literal["csv", "markdown"] = "csv") -> str:  # noqa: A002 - as above
        """One line for each job of the batch."""
        return self._text(operations.GET_BATCH_REPORT, batch_id, BatchReportQuery(format=format))

    # ---- requests

    def _ask(
        self,
        operation: Operation[Query, Body, Answer],
        number: int | None = None,
        *,
        query: Frozen = NO_QUERY,
        body: Frozen = NO_BODY,
    ) -> Answer:
        return _read(operation, self._send(operation, number, query, body))

    def _list(self, operation: Operation[Query, Body, tuple[Item, ...]], query: Query) -> Listed[Item]:
        reply = self._send(operation, None, query, NO_BODY)
        items = _read(operation, reply)
        return Listed(items, int(reply.headers.get("Total-Count", len(items))))

    def _text(self, operation: Operation[Query, Body, Answer], number: int, query: Query) -> str:
        return self._send(operation, number, query, NO_BODY).body.decode()

    def _send(
        self, operation: Operation[Query, Body, Answer], number: int | None, query: Frozen, body: Frozen
    ) -> Reply:
        path = operation.path.format(id=number)
        words = urlencode(query.model_dump(mode="json", exclude_defaults=True), doseq=True)
        given = None if operation.body is NoBody else body.model_dump(mode="json")
        return request(
            self.socket, operation.method, f"{path}?{words}" if words else path, given, timeout_seconds=self._timeout
        )


def _read(operation: Operation[Query, Body, Answer], reply: Reply) -> Answer:
    try:
        return operation.adapter.validate_json(reply.body)
    except ValidationError as error:
        raise BrokenInstallation(
            "daemon-foreign",
            "the answer on the control socket comes from another version or another program",
            hint="Restart hyper2kvmd after an update, or give the path of its socket with --socket",
        ) from error
