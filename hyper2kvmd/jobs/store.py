"""The verbs of the queue. Every change and its event are one transaction.

Results are frozen. A write for a worker names its job and attempt; it returns False and changes nothing if that is no
longer the running attempt of the job.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, text, update
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from hyper2kvmd.errors import InvalidInput, TryLater
from hyper2kvmd.jobs.cards import forget_cards, replace_cards
from hyper2kvmd.jobs.changes import (
    can_be_retried,
    change,
    fence,
    finished_stages,
    first_line,
    forget_early_events,
    forget_products,
    forget_stages,
    is_active,
    one,
    over,
    queued,
    record,
    record_at,
    without_active_batch,
)
from hyper2kvmd.jobs.database import corrupt, open_database
from hyper2kvmd.jobs.submissions import Origin, Refusal, Submission, Submitted, refuse, submit_together
from hyper2kvmd.jobs.tables import (
    MISPLACED,
    WARNINGS,
    conversions,
    event_of,
    events,
    job_of,
    jobs,
    problems_adapter,
    queue,
    stages,
)
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.jobs import WARNED, Counts, Job, JobEvent, PastRate, Problem, Stage, State
from hyper2kvmd.model.results import Finished, Product, recorded
from hyper2kvmd.units import duration, size

RATED = 10
"""Conversions whose median is the past rate."""


class Store:
    """One database. Safe to share between threads.

    Every method may raise TryLater (`database-unavailable`) and BrokenInstallation (`database-corrupt`).
    """

    def __init__(self, address: str) -> None:
        self._engine = open_database(address)

    def close(self) -> None:
        self._engine.dispose()

    # ------------------------------------------------------------ into the queue

    def submit(self, migration: Migration, *, content_key: str, origin: Origin) -> Submitted:
        """Queue a migration, unless the same content is queued, held or running."""
        return self.submit_all([[Submission(migration, content_key, origin)]])[0][0]

    def submit_all(self, batches: Sequence[Sequence[Submission]]) -> list[list[Submitted]]:
        """The same for many, in one transaction. Of a batch, all are queued, or only the active ones are returned."""
        if not batches:
            return []
        with self._transaction(writes=True) as connection:
            return [submit_together(connection, batch) for batch in batches]

    def reject_all(self, refusals: Sequence[Refusal]) -> list[Job]:
        """Record submissions that could not become jobs, in one transaction."""
        if not refusals:
            return []
        with self._transaction(writes=True) as connection:
            return [refuse(connection, refusal) for refusal in refusals]

    # ------------------------------------------------------------ an attempt

    def claim(self, now: datetime) -> Job | None:
        """The next job, now running in a new attempt: highest priority first, then the oldest."""
        best = (
            select(jobs.c.id)
            .where(jobs.c.state == State.QUEUED, or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now))
            .order_by(jobs.c.priority.desc(), jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        values = {
            "state": State.RUNNING,
            "attempt": jobs.c.attempt + 1,
            "started": now,
            "finished": None,
            "not_before": None,
            "stage": None,
            "progress": 0.0,
            "note": "",
            "problems": "[]",
            "reserved_bytes": 0,
        }
        with self._transaction(writes=True) as connection:
            row = (
                connection.execute(update(jobs).where(jobs.c.id == best).values(values).returning(jobs))
                .mappings()
                .first()
            )
            if row is None:
                return None
            job = job_of(row)
            record(connection, job, "claimed", f"attempt {job.attempt}")
            forget_early_events(connection, job.id)
            return job

    def finished_stages(self, job_id: int) -> Finished:
        """Stages that earlier attempts finished and that are still valid; none if this version cannot read them."""
        with self._transaction() as connection:
            return finished_stages(connection, job_id)

    def start_stage(self, job_id: int, attempt: int, stage: Stage) -> bool:
        """Forget the products of this stage and of those after it from earlier attempts."""
        with self._transaction(writes=True) as connection:
            if not change(connection, fence(job_id, attempt), stage=stage, progress=0.0):
                return False
            forget_products(connection, job_id, stage)
            record_at(connection, job_id, attempt, "stage-started", stage.value)
            return True

    def finish_stage(self, job_id: int, attempt: int, stage: Stage, seconds: float, product: Product) -> bool:
        with self._transaction(writes=True) as connection:
            if not change(connection, fence(job_id, attempt), progress=1.0):
                return False
            forget_products(connection, job_id, stage)
            connection.execute(
                insert(stages).values(
                    job_id=job_id,
                    stage=stage.value,
                    attempt=attempt,
                    seconds=seconds,
                    product=recorded(product),
                )
            )
            record_at(connection, job_id, attempt, "stage-finished", f"{stage.value} in {duration(seconds)}")
            return True

    def record_conversion(self, job_id: int, attempt: int, data_bytes: int, seconds: float) -> bool:
        """For `past_rate`: a conversion that this attempt did from beginning to end."""
        with self._transaction(writes=True) as connection:
            if not change(connection, fence(job_id, attempt), attempt=attempt):
                return False
            connection.execute(delete(conversions).where(conversions.c.job_id == job_id))
            connection.execute(insert(conversions).values(job_id=job_id, data_bytes=data_bytes, seconds=seconds))
            return True

    def record_progress(self, job_id: int, attempt: int, progress: float) -> bool:
        with self._transaction(writes=True) as connection:
            return change(connection, fence(job_id, attempt), progress=progress)

    def record_warning(self, job_id: int, attempt: int, message: str) -> bool:
        return self._write(job_id, attempt, WARNED, message)

    def record_machine(self, job_id: int, attempt: int, lines: Sequence[str]) -> bool:
        return self._write(job_id, attempt, "machine", *lines)

    def record_macs(self, job_id: int, attempt: int, macs: Iterable[str]) -> Sequence[Concern]:
        """Record the MAC addresses of the job's machine; returns concerns about those that other jobs have."""
        with self._transaction(writes=True) as connection:
            migration = one(connection, job_id).migration
            if migration is None or not change(connection, fence(job_id, attempt), attempt=attempt):
                return ()
            found = tuple(replace_cards(connection, job_id, migration, macs))
            for concern in found:
                record_at(connection, job_id, attempt, WARNED, str(concern))
            return found

    def reserve(self, job_id: int, attempt: int, reserved_bytes: int) -> bool:
        message = f"{size(reserved_bytes)} reserved"
        return self._write(job_id, attempt, "space-reserved", message, reserved_bytes=reserved_bytes)

    def succeed(self, job_id: int, attempt: int, note: str) -> bool:
        """Forget the products of the stages: no attempt will continue from them."""
        with self._transaction(writes=True) as connection:
            values = {**over(State.SUCCEEDED), "note": note, "progress": 1.0, "stage": None}
            if not change(connection, fence(job_id, attempt), **values):
                return False
            forget_products(connection, job_id)
            record_at(connection, job_id, attempt, "succeeded", note)
            return True

    def fail(
        self, job_id: int, attempt: int, problems: Sequence[Problem], *, keep_stages: bool, note: str = ""
    ) -> bool:
        with self._transaction(writes=True) as connection:
            shown = problems_adapter.dump_json(tuple(problems)).decode()
            values = {**over(State.FAILED), "problems": shown, "note": note}
            if not change(connection, fence(job_id, attempt), failures=jobs.c.failures + 1, **values):
                return False
            forget_stages(connection, job_id, keep_stages)
            forget_cards(connection, job_id)
            record_at(connection, job_id, attempt, "failed", first_line(problems))
            return True

    def requeue(
        self,
        job_id: int,
        attempt: int,
        note: str,
        *,
        keep_stages: bool,
        not_before: datetime | None = None,
        problems: Sequence[Problem] = (),
    ) -> bool:
        """Give a running job back to the queue; with `problems`, it counts as a failed try.

        Also returns False if its cancellation was requested meanwhile.
        """
        with self._transaction(writes=True) as connection:
            values = {
                "not_before": not_before,
                "note": note,
                "problems": problems_adapter.dump_json(tuple(problems)).decode(),
                "failures": jobs.c.failures + (1 if problems else 0),
            }
            where = *fence(job_id, attempt), jobs.c.cancelling.is_(False)
            if not change(connection, where, **queued(), **values):
                return False
            forget_stages(connection, job_id, keep_stages)
            record_at(connection, job_id, attempt, "requeued", note)
            return True

    def finish_cancelled(self, job_id: int, attempt: int, *, keep_stages: bool, note: str = "") -> bool:
        with self._transaction(writes=True) as connection:
            if not change(connection, fence(job_id, attempt), **over(State.CANCELLED), note=note):
                return False
            forget_stages(connection, job_id, keep_stages)
            forget_cards(connection, job_id)
            record_at(connection, job_id, attempt, "cancelled")
            return True

    def note_kept_folder(self, job_id: int, note: str) -> None:
        """Note for a failed or cancelled job that its working folder is kept."""
        with self._transaction(writes=True) as connection:
            change(connection, can_be_retried(job_id), note=note)

    def note_removed_folder(self, job_id: int, why: str) -> None:
        """Note for a failed or cancelled job that its working folder is gone, and forget its stages."""
        with self._transaction(writes=True) as connection:
            if change(connection, can_be_retried(job_id), note=f"working folder removed: {why}"):
                forget_stages(connection, job_id, keep=False)
                record(connection, one(connection, job_id), "folder-removed", why)

    def forget_finished_stages(self, job_id: int) -> None:
        """Forget the stages of a failed or cancelled job without a working folder."""
        with self._transaction(writes=True) as connection:
            if change(connection, can_be_retried(job_id), stage=jobs.c.stage):
                forget_stages(connection, job_id, keep=False)

    def recover(self) -> Sequence[Job]:
        """Requeue jobs that a dead daemon left running, with their finished stages. Call it before any claim.

        Jobs that were being cancelled are cancelled.
        """
        recovered = []
        with self._transaction(writes=True) as connection:
            running = connection.execute(select(jobs).where(jobs.c.state == State.RUNNING)).mappings().all()
            for row in running:
                cancelled = row["cancelling"]
                values = over(State.CANCELLED) if cancelled else {**queued(), "not_before": None}
                change(connection, (jobs.c.id == row["id"],), **values, note="" if cancelled else "the daemon had died")
                if cancelled:
                    forget_cards(connection, row["id"])
                kind, message = ("cancelled", "") if cancelled else ("requeued", "the daemon had died")
                record_at(connection, row["id"], row["attempt"], kind, message)
                recovered.append(one(connection, row["id"]))
        return recovered

    # ------------------------------------------------------------ the operator

    def cancel(self, job_id: int, by: str) -> Job:
        """Cancel a waiting job, or mark a running one, which ends with its worker.

        This and the next three methods raise InvalidInput: `job-unknown`, or `job-state` if the job's state does not
        allow it.
        """
        with self._transaction(writes=True) as connection:
            job = self._allow(connection, job_id, "cancel", State.QUEUED, State.HELD, State.RUNNING)
            if job.state == State.RUNNING:
                change(connection, (jobs.c.id == job_id,), cancelling=True, note="being cancelled")
                record(connection, job, "cancel-requested", by)
            else:
                change(connection, (jobs.c.id == job_id,), **over(State.CANCELLED), note="")
                forget_cards(connection, job_id)
                record(connection, job, "cancelled", by)
            return one(connection, job_id)

    def hold(self, job_id: int, by: str) -> Job:
        return self._move(job_id, by, "hold", "held", (State.QUEUED,), state=State.HELD)

    def release(self, job_id: int, by: str) -> Job:
        return self._move(job_id, by, "release", "released", (State.HELD,), **queued(), note="")

    def retry(self, job_id: int, by: str) -> Job:
        """Queue a failed or cancelled job again. Its worker continues after the last finished stage on record.

        Also raises InvalidInput (`job-duplicate`) when another active job has the same content.
        """
        values = {**queued(), "failures": 0, "finished": None, "not_before": None, "note": "", "problems": "[]"}
        try:
            return self._move(job_id, by, "retry", "retried", (State.FAILED, State.CANCELLED), **values)
        except IntegrityError as error:
            raise InvalidInput(
                "job-duplicate",
                f"job {job_id} cannot be retried: the same migration is active as another job",
                hint="Wait for that job, or cancel it first",
            ) from error

    def wake(self, job_ids: Sequence[int]) -> None:
        """Let queued jobs be claimed at once, without further waiting."""
        with self._transaction(writes=True) as connection:
            connection.execute(
                update(jobs).where(jobs.c.id.in_(job_ids), jobs.c.state == State.QUEUED).values(not_before=None)
            )

    def set_paused(self, paused: bool) -> None:
        with self._transaction(writes=True) as connection:
            connection.execute(update(queue).values(paused=paused))

    def move_spool_files(self, paths: Mapping[int, str | None]) -> None:
        """Record the new paths of spool files, by job: relative to the spool directory, or None if the file is gone."""
        if not paths:
            return
        with self._transaction(writes=True) as connection:
            for job_id, path in paths.items():
                change(connection, (jobs.c.id == job_id,), spool_path=path)

    def forget(self, before: datetime, *, dry_run: bool = False) -> int:
        """Delete the jobs that ended before then, with their history; return the number. `dry_run` only counts them."""
        old = ~is_active() & (jobs.c.finished < before) & without_active_batch()
        with self._transaction(writes=not dry_run) as connection:
            count = connection.execute(select(func.count()).select_from(jobs).where(old)).scalar_one()
            if not dry_run:
                connection.execute(delete(jobs).where(old))
            return int(count)

    def forget_jobs(self, job_ids: Sequence[int]) -> None:
        """Delete the finished ones of these jobs, with their history."""
        with self._transaction(writes=True) as connection:
            connection.execute(delete(jobs).where(jobs.c.id.in_(job_ids), ~is_active()))

    # ------------------------------------------------------------ questions

    def get(self, job_id: int) -> Job:
        with self._transaction() as connection:
            return one(connection, job_id)

    def list(self, states: Sequence[State] = (), limit: int = 1000) -> list[Job]:
        """The newest jobs first."""
        query = select(jobs, WARNINGS).order_by(jobs.c.id.desc()).limit(limit)
        if states:
            query = query.where(jobs.c.state.in_(states))
        with self._transaction() as connection:
            return [job_of(row) for row in connection.execute(query).mappings()]

    def events(self, job_id: int) -> Sequence[JobEvent]:
        with self._transaction() as connection:
            one(connection, job_id)
            rows = connection.execute(select(events).where(events.c.job_id == job_id).order_by(events.c.id))
            return [event_of(row) for row in rows.mappings()]

    def past_rate(self) -> PastRate | None:
        """From the last RATED conversions; None if none is on record."""
        query = select(conversions).order_by(conversions.c.job_id.desc()).limit(RATED)
        with self._transaction() as connection:
            rates = [row.data_bytes / row.seconds for row in connection.execute(query)]
        return PastRate(bytes_per_second=statistics.median(rates), conversions=len(rates)) if rates else None

    def overview(self) -> tuple[Counts, datetime | None]:
        """The number of jobs by state, and the submission time of the oldest queued one."""
        query = select(jobs.c.state, func.count(), func.min(jobs.c.created)).group_by(jobs.c.state)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        oldest = next((row[2] for row in rows if row[0] == State.QUEUED), None)
        return Counts.model_validate({row[0]: row[1] for row in rows}), oldest

    def waiting(self) -> dict[str, int]:
        """How many jobs of each submitter are queued or held."""
        waiting = jobs.c.state.in_((State.QUEUED, State.HELD))
        with self._transaction() as connection:
            query = select(jobs.c.submitter, func.count()).where(waiting).group_by(jobs.c.submitter)
            return {row[0]: row[1] for row in connection.execute(query)}

    def active_ids(self) -> frozenset[int]:
        with self._transaction() as connection:
            return frozenset(connection.execute(select(jobs.c.id).where(is_active())).scalars())

    def failures(self, job_id: int) -> int:
        """Tries that failed since the job was submitted or retried by hand."""
        with self._transaction() as connection:
            return int(connection.execute(select(jobs.c.failures).where(jobs.c.id == job_id)).scalar_one())

    def known_claims(self, claims: Sequence[str]) -> frozenset[str]:
        """The claimed spool files that are on record as jobs."""
        if not claims:
            return frozenset()
        with self._transaction() as connection:
            return frozenset(
                connection.execute(select(jobs.c.spool_claim).where(jobs.c.spool_claim.in_(claims))).scalars()
            )

    def batches(self, names: Sequence[str]) -> Mapping[str, Sequence[Job]]:
        """The jobs of each of these batches, in the order of the file."""
        if not names:
            return {}
        query = select(jobs).where(jobs.c.batch.in_(names)).order_by(jobs.c.batch, jobs.c.id)
        with self._transaction() as connection:
            found = [job_of(row) for row in connection.execute(query).mappings()]
        return {str(name): tuple(members) for name, members in itertools.groupby(found, lambda job: job.batch)}

    def misplaced(self) -> Sequence[tuple[Job, str]]:
        """Finished jobs whose spool file is not in the folder of their state, and the path of that file."""
        with self._transaction() as connection:
            rows = connection.execute(select(jobs).where(text(MISPLACED)).order_by(jobs.c.id)).mappings().all()
            return [(job_of(row), row["spool_path"]) for row in rows]

    def surplus(self, submitter: str, state: State, kept: int) -> Sequence[tuple[int, str | None]]:
        """Numbers and spool files of the submitter's jobs in that state, except the newest `kept`; 1,000 at most."""
        theirs = jobs.c.submitter == submitter, jobs.c.state == state, without_active_batch()
        query = select(jobs.c.id, jobs.c.spool_path).where(*theirs).order_by(jobs.c.id.desc())
        with self._transaction() as connection:
            return [(row[0], row[1]) for row in connection.execute(query.offset(kept).limit(1000))]

    def paused(self) -> bool:
        with self._transaction() as connection:
            return bool(connection.execute(select(queue.c.paused)).scalar_one())

    # ------------------------------------------------------------ within

    @contextmanager
    def _transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(writes=writes) as connection, connection.begin():
                yield connection
        except OperationalError as error:
            raise TryLater(
                "database-unavailable",
                f"the job database does not respond: {error.orig}",
                hint="Check the space and the mode of its file system",
            ) from error
        except IntegrityError:
            raise
        except DatabaseError as error:
            raise corrupt(str(self._engine.url.database), str(error.orig)) from error

    def _write(self, job_id: int, attempt: int, kind: str, *messages: str, **values: Any) -> bool:
        with self._transaction(writes=True) as connection:
            if not change(connection, fence(job_id, attempt), **(values or {"attempt": attempt})):
                return False
            for message in messages:
                record_at(connection, job_id, attempt, kind, message)
            return True

    def _move(self, job_id: int, by: str, verb: str, kind: str, allowed: tuple[State, ...], **values: Any) -> Job:
        with self._transaction(writes=True) as connection:
            job = self._allow(connection, job_id, verb, *allowed)
            change(connection, (jobs.c.id == job_id,), **values)
            record(connection, job, kind, by)
            return one(connection, job_id)

    def _allow(self, connection: Connection, job_id: int, verb: str, *allowed: State) -> Job:
        job = one(connection, job_id)
        if job.state not in allowed:
            raise InvalidInput(
                "job-state",
                f"job {job_id} is {job.state.value}: {verb} is not possible",
                hint=f"Choose a job that is {' or '.join(state.value for state in allowed)}",
            )
        return job
