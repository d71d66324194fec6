"""Fills the outbox of notifications, in the transaction of the event that each of them is about."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, insert, select

from hyper2kvmd.jobs.rows import counts_of, known_state
from hyper2kvmd.jobs.tables import SHOWN, batches, job_of, jobs, notifications, subscriptions
from hyper2kvmd.model.jobs import Job, WaitingFor
from hyper2kvmd.model.notifications import BatchFacts, JobFacts, Notification, Occasion

PENDING, DELIVERED, GIVEN_UP = "pending", "delivered", "given-up"
SPACE_PAUSE = timedelta(hours=1)
"""Between two notifications that the same job waits for space."""
STALLED = "stalled"
"""The kind of an event of a running job that has moved no byte for some time."""
ENDS = ("succeeded", "failed", "cancelled")
"""Kinds of events with which a job ends."""
MAX_SUMMARY = 500


def announce(connection: Connection, job_id: int, kind: str, message: str) -> None:
    """Notify the destinations that want to know of this event, which is on record already, with its change."""
    if kind not in OCCASIONS_OF and kind not in ENDS:
        return
    if not wanted_kinds(connection):
        return
    row = connection.execute(select(jobs, *SHOWN).where(jobs.c.id == job_id)).mappings().one()
    job = job_of(row)
    occasions = OCCASIONS_OF[kind](connection, job) if kind in OCCASIONS_OF else ()
    if occasions:
        _post_job(connection, job, occasions, message)
    if kind in ENDS and job.batch_id is not None:
        _post_batch(connection, job.batch_id)


def wanted_kinds(connection: Connection) -> frozenset[str]:
    """The kinds of events of which a destination may want to know."""
    subscribed = connection.execute(select(subscriptions.c.destination).limit(1)).first()
    return frozenset((*OCCASIONS_OF, *ENDS)) if subscribed else frozenset()


def _succeeded(_connection: Connection, job: Job) -> tuple[Occasion, ...]:
    return ("warning", "success") if job.warnings else ("success",)


def _requeued(connection: Connection, job: Job) -> tuple[Occasion, ...]:
    if job.waiting_for is not WaitingFor.SPACE:
        return ()
    now = datetime.now(UTC)
    recent = (
        notifications.c.job_id == job.id,
        notifications.c.occasion == "space",
        notifications.c.created.between(now - SPACE_PAUSE, now + SPACE_PAUSE),  # a later one is of a wrong clock
    )
    told = connection.execute(select(notifications.c.id).where(*recent).limit(1)).first()
    return () if told else ("space",)


OCCASIONS_OF: Mapping[str, Callable[[Connection, Job], tuple[Occasion, ...]]] = {
    "succeeded": _succeeded,
    "failed": lambda _connection, _job: ("failure",),
    "held": lambda _connection, _job: ("held",),
    STALLED: lambda _connection, _job: ("stall",),
    "requeued": _requeued,
}
"""For each kind of event: what the notification is about. A destination that wants one of these gets it."""


def _post_job(connection: Connection, job: Job, occasions: tuple[Occasion, ...], message: str) -> None:
    warned = f" with {job.warnings} warning{'s' if job.warnings > 1 else ''}" if job.warnings else ""
    what = {
        "success": "succeeded",
        "warning": f"succeeded{warned}",
        "failure": "failed",
        "held": "is held",
        "stall": "has stalled",
        "space": "waits for space",
    }[occasions[0]]
    detail = f": {message}" if message else ""
    summary = f"{job.vm_name} (job {job.id}) {what}{detail}"
    facts = JobFacts.of(job)
    _post(connection, occasions, lambda event: _notification(event, summary, job=facts), job.id)


def _post_batch(connection: Connection, batch_id: int) -> None:
    """Unless a job of the batch is active."""
    query = (
        select(jobs.c.state, func.count(), func.sum(jobs.c.warnings))
        .where(jobs.c.batch_id == batch_id)
        .group_by(jobs.c.state)
    )
    figures = connection.execute(query).all()
    states = [known_state(state) for state, _, _ in figures]
    if any(state is not None and state.active for state in states):
        return
    row = connection.execute(select(batches).where(batches.c.id == batch_id)).mappings().one()
    facts = BatchFacts(
        **{name: row[name] for name in ("id", "name", "submitter", "created")},
        counts=counts_of((state, number) for state, number, _ in figures),
        warnings=sum(warnings for _, _, warnings in figures),
    )
    listed = ", ".join(f"{number} {state}" for state, number in facts.counts if number)
    summary = f"batch {facts.name} is done: {listed}"
    _post(connection, ("batch",), lambda event: _notification(event, summary, batch=facts), None)


def _notification(
    event: Occasion, summary: str, *, job: JobFacts | None = None, batch: BatchFacts | None = None
) -> Notification:
    line = " ".join(summary.split())
    short = line if len(line) <= MAX_SUMMARY else f"{line[:MAX_SUMMARY]}..."
    return Notification(id=uuid.uuid4().hex, event=event, at=datetime.now(UTC), summary=short, job=job, batch=batch)


def _post(
    connection: Connection,
    occasions: tuple[Occasion, ...],
    made: Callable[[Occasion], Notification],
    job_id: int | None,
) -> None:
    """One notification for each destination that wants any of these; it is called after the first."""
    wanting = subscriptions.c.occasion.in_(occasions)
    query = select(subscriptions.c.destination).where(wanting).distinct().order_by(subscriptions.c.destination)
    receivers = connection.execute(query).scalars().all()
    if not receivers:
        return
    notification = made(occasions[0])
    row = {
        "occasion": occasions[0],
        "job_id": job_id,
        "created": notification.at,
        "message": notification.model_dump_json(),
        "state": PENDING,
        "next_try": notification.at,
    }
    connection.execute(insert(notifications), [{**row, "destination": name} for name in receivers])
