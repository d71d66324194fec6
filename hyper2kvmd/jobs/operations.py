"""What operators and the spool change: cancelling, holding, retrying and forgetting jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, select, text, update
from sqlalchemy.exc import IntegrityError

from hyper2kvmd.errors import AlreadyActive, InvalidInput
from hyper2kvmd.jobs.cards import forget_cards
from hyper2kvmd.jobs.changes import (
    UNDELAYED,
    change,
    forget_early_events,
    forget_empty_batches,
    is_active,
    one,
    over,
    record,
    without_active_group,
)
from hyper2kvmd.jobs.dependencies import arrange_dependents, enqueue, forget_broken, needed_by_others
from hyper2kvmd.jobs.endings import take_file_back
from hyper2kvmd.jobs.tables import PUT_AWAY, jobs, queue, work
from hyper2kvmd.jobs.transactions import Transactions
from hyper2kvmd.model.jobs import Job, State, WaitingFor

ANEW: Mapping[str, Any] = {"failures": 0, "deaths": 0, "finished": None, "problems": "[]", **UNDELAYED}
"""Columns of a job that a person lets start again."""


class Operations(Transactions):
    def cancel(self, job_id: int, by: str) -> Job:
        """Cancel a waiting job, or mark a running one, which ends with its worker.

        This and the next three methods raise NotFound (`job-unknown`), or InvalidInput (`job-state`) if the job's state
        does not allow it.
        """
        with self.transaction(writes=True) as connection:
            job = self._allow(connection, job_id, "cancel", State.QUEUED, State.HELD, State.RUNNING)
            if job.state == State.RUNNING:
                change(connection, (jobs.c.id == job_id,), cancelling=True, note="being cancelled")
                _record_order(connection, job, "cancel-requested", by)
            else:
                change(connection, (jobs.c.id == job_id,), **over(State.CANCELLED), note="")
                forget_cards(connection, job_id)
                _record_order(connection, job, "cancelled", by)
                arrange_dependents(connection, job_id)
            return one(connection, job_id)

    def hold(self, job_id: int, by: str) -> Job:
        with self.transaction(writes=True) as connection:
            job = self._allow_hold(connection, job_id)
            change(connection, (jobs.c.id == job_id,), state=State.HELD, waiting_for=WaitingFor.OPERATOR)
            _record_order(connection, job, "held", by)
            return one(connection, job_id)

    def _allow_hold(self, connection: Connection, job_id: int) -> Job:
        """Also a job that is held because of another one: then it stays held when that one is retried."""
        job = one(connection, job_id)
        if job.state is State.HELD and job.waiting_for is WaitingFor.AFTER:
            return job
        return self._allow(connection, job_id, "hold", State.QUEUED)

    def release(self, job_id: int, by: str) -> Job:
        """Let a held job start, also in spite of jobs that it needs and that failed."""
        with self.transaction(writes=True) as connection:
            job = self._allow(connection, job_id, "release", State.HELD)
            _record_order(connection, job, "released", by)
            forget_broken(connection, job_id)
            enqueue(connection, job_id, **ANEW)
            return one(connection, job_id)

    def set_priority(self, job_id: int, priority: int, by: str) -> Job:
        """Change the priority of a waiting job. Raises NotFound (`job-unknown`) or InvalidInput (`job-state`)."""
        with self.transaction(writes=True) as connection:
            job = self._allow(connection, job_id, "priority", State.QUEUED, State.HELD)
            change(connection, (jobs.c.id == job_id,), priority=priority)
            _record_order(connection, job, "priority-changed", f"{job.priority} to {priority} by {by}")
            return one(connection, job_id)

    def retry(self, job_id: int, by: str) -> Job:
        """Queue a job again that failed, was cancelled, or is held because of a failure.

        Its worker continues after the last finished stage on record. Also raises AlreadyActive (`job-duplicate`) when
        another active job has the same content.
        """
        try:
            with self.transaction(writes=True) as connection:
                job = self._allow_retry(connection, job_id)
                _record_order(connection, job, "retried", by)
                enqueue(connection, job_id, **ANEW)
                arrange_dependents(connection, job_id)
                take_file_back(connection, job_id)
                return one(connection, job_id)
        except IntegrityError as error:
            raise AlreadyActive(
                "job-duplicate",
                f"job {job_id} cannot be retried: the same migration is active as another job",
                hint="Wait for that job, or cancel it first",
            ) from error

    def _allow_retry(self, connection: Connection, job_id: int) -> Job:
        job = one(connection, job_id)
        if job.waiting_for is WaitingFor.REMEDY:
            return job
        if job.state is State.HELD:
            raise InvalidInput(
                "job-state",
                f"job {job_id} is held, and no attempt of it has failed: retry is not possible",
                hint=f"Run `h2kvmctl release {job_id}` to let it start",
            )
        return self._allow(connection, job_id, "retry", State.FAILED, State.CANCELLED)

    def wake(self, job_ids: Sequence[int]) -> None:
        """Let queued jobs be claimed at once, without further waiting."""
        with self.transaction(writes=True) as connection:
            connection.execute(
                update(jobs)
                .where(jobs.c.id.in_(job_ids), jobs.c.state == State.QUEUED)
                .values(waiting_for=None, **UNDELAYED)
            )

    def set_paused(self, paused: bool) -> None:
        with self.transaction(writes=True) as connection:
            connection.execute(update(queue).values(paused=paused))

    def set_identity(self, identity: str) -> None:
        """Let this database be the one of another queue, whose database is lost."""
        with self.transaction(writes=True) as connection:
            connection.execute(update(queue).values(identity=identity))

    def forget(self, before: datetime, *, dry_run: bool = False) -> int:
        """Delete the jobs that ended before then, with their history; return the number. `dry_run` only counts them.

        A job whose spool file was not put away yet stays: without it, the file in active/ would become a job again.
        """
        old = ~is_active() & (jobs.c.finished < before) & without_active_group() & ~needed_by_others() & text(PUT_AWAY)
        with self.transaction(writes=not dry_run) as connection:
            count = connection.execute(select(func.count()).select_from(jobs).where(old)).scalar_one()
            if not dry_run:
                connection.execute(delete(jobs).where(old))
                connection.execute(delete(work).where(work.c.hour < before))
                forget_empty_batches(connection)
            return int(count)

    def _allow(self, connection: Connection, job_id: int, verb: str, *allowed: State) -> Job:
        job = one(connection, job_id)
        if job.state not in allowed:
            raise InvalidInput(
                "job-state",
                f"job {job_id} {job.state.said}: {verb} is not possible",
                hint=f"Choose a job that is {_one_of([state.value for state in allowed])}",
            )
        return job


def _one_of(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _record_order(connection: Connection, job: Job, kind: str, message: str) -> None:
    """Orders may be given without end, also to a job that is never claimed."""
    record(connection, job, kind, message)
    forget_early_events(connection, job.id)
