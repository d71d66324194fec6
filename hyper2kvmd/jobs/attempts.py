"""The attempts of jobs, as the daemon records them.

A write names its job and attempt; it returns False and changes nothing if that is no longer the running attempt of the
job. Each can be repeated: an error of the disk or the connection may hide that it was put on record.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from hyper2kvmd.jobs.candidates import Admits, Times, Usable, forget_busy_sources, next_job
from hyper2kvmd.jobs.cards import forget_cards, replace_cards
from hyper2kvmd.jobs.changes import (
    UNDELAYED,
    can_be_retried,
    change,
    fence,
    finished_stages,
    first_line,
    forget_early_events,
    forget_products,
    forget_stages,
    keep_for_outcome,
    one,
    over,
    queued,
    record,
    record_at,
)
from hyper2kvmd.jobs.deaths import finished_before, is_suspect, recover_job, runs_any, runs_suspect
from hyper2kvmd.jobs.delays import delayed, restart_delays, show_delays
from hyper2kvmd.jobs.dependencies import arrange_dependents, put, start_of
from hyper2kvmd.jobs.on_record import has_events, has_finished, is_now
from hyper2kvmd.jobs.outbox import PENDING, STALLED, announce
from hyper2kvmd.jobs.rows import unreadable
from hyper2kvmd.jobs.tables import conversions, jobs, notifications, problems_adapter, queue, stages
from hyper2kvmd.jobs.transactions import Transactions
from hyper2kvmd.jobs.workload import add_work
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.jobs import NOTED, WARNED, Job, Problem, Stage, State, WaitingFor
from hyper2kvmd.model.results import Finished, Product, recorded
from hyper2kvmd.units import duration, size
from hyper2kvmd.uptime import uptime

log = logging.getLogger(__name__)

MAX_SHUT = 100
"""Jobs with a shut window that one search for a job moves. It limits the time of a transaction that blocks all others.
"""


class Unsearched(Exception):
    """Each of MAX_SHUT jobs had a shut window; jobs behind them may start."""


class Attempts(Transactions):
    def claim(
        self,
        now: datetime,
        admits: Admits | None = None,
        usable: Usable | None = None,
        *,
        since_boot: float | None = None,
        wall_trusted: bool = True,
    ) -> Job | None:
        """The next job, now running in a new attempt: highest priority first, then the oldest.

        A job whose migration cannot be read fails. Jobs that `admits` refuses are passed over: they wait for their
        source, and those that `usable` refuses for a directory. A job whose window is shut gets the time of its next
        opening instead. One that daemons died with runs
        alone. `since_boot` is the uptime; None: that of now. Unless the wall clock is trusted, jobs with a window or a
        time wait. Raises Unsearched: call it again.
        """
        times = Times(now, uptime().seconds if since_boot is None else since_boot, wall_trusted)
        if not self._any_queued():
            return None
        with self.transaction(writes=True) as connection:
            if runs_suspect(connection):
                return None
            for _ in range(MAX_SHUT):
                best = next_job(connection, times, admits, usable)
                if best is None or (is_suspect(connection, best) and runs_any(connection)):
                    return None
                job = one(connection, best)
                if job.migration is None:
                    _fail_unreadable(connection, job)
                    continue
                start = _start(job, times)
                if start.get("waiting_for") is None:
                    return _claimed(connection, job, now)
                put(connection, job, **start)
        raise Unsearched

    def _any_queued(self) -> bool:
        """The check before a transaction that writes: such a transaction blocks others, and often no job is queued."""
        queued = select(jobs.c.id).where(jobs.c.state == State.QUEUED).limit(1)
        with self.transaction() as connection:
            return connection.execute(queued).first() is not None

    def forget_busy_sources(self) -> None:
        """Let no job wait for its source until the next claim: a job has ended, or the limits are others."""
        with self.transaction(writes=True) as connection:
            forget_busy_sources(connection)

    def finished_stages(self, job_id: int) -> Finished:
        """Stages that earlier attempts finished and that are still valid; none if this version cannot read them."""
        with self.transaction() as connection:
            return finished_stages(connection, job_id)

    def start_stage(self, job_id: int, attempt: int, stage: Stage) -> bool:
        """Forget the products of this stage and of those after it from earlier attempts."""
        with self.transaction(writes=True) as connection:
            begun = has_events(connection, job_id, "stage-started", stage.value, attempt=attempt)
            if not change(connection, fence(job_id, attempt), stage=stage, progress=0.0):
                return False
            if not begun:
                forget_products(connection, job_id, stage)
                record_at(connection, job_id, attempt, "stage-started", stage.value)
            return True

    def finish_stage(self, job_id: int, attempt: int, stage: Stage, seconds: float, product: Product) -> bool:
        with self.transaction(writes=True) as connection:
            if not change(connection, fence(job_id, attempt), progress=1.0):
                return False
            if has_finished(connection, job_id, attempt, stage):
                return True
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
            if not finished_before(connection, job_id, stage):
                change(connection, (jobs.c.id == job_id,), deaths=0)
            record_at(connection, job_id, attempt, "stage-finished", f"{stage.value} in {duration(seconds)}")
            return True

    def record_conversion(self, job_id: int, attempt: int, data_bytes: int, seconds: float) -> bool:
        """For `past_rate`: a conversion that this attempt did from beginning to end."""
        with self.transaction(writes=True) as connection:
            if not change(connection, fence(job_id, attempt), attempt=attempt):
                return False
            connection.execute(delete(conversions).where(conversions.c.job_id == job_id))
            connection.execute(insert(conversions).values(job_id=job_id, data_bytes=data_bytes, seconds=seconds))
            return True

    def record_progress(self, job_id: int, attempt: int, progress: float) -> bool:
        with self.transaction(writes=True) as connection:
            return change(connection, fence(job_id, attempt), progress=progress)

    def record_warning(self, job_id: int, attempt: int, message: str) -> bool:
        with self.transaction(writes=True) as connection:
            if not change(connection, fence(job_id, attempt), attempt=attempt):
                return False
            _warn(connection, job_id, attempt, message)
            return True

    def record_note(self, job_id: int, attempt: int, message: str) -> bool:
        """Each text once."""
        with self.transaction(writes=True) as connection:
            if not change(connection, fence(job_id, attempt), attempt=attempt):
                return False
            if not has_events(connection, job_id, NOTED, message):
                record_at(connection, job_id, attempt, NOTED, message)
            return True

    def record_stall(self, job_id: int, attempt: int, message: str) -> bool:
        """A warning, of which destinations are notified: each text once for each attempt."""
        with self.transaction(writes=True) as connection:
            if not change(connection, fence(job_id, attempt), attempt=attempt):
                return False
            if _warn(connection, job_id, attempt, message):
                announce(connection, job_id, STALLED, message)
            return True

    def record_machine(self, job_id: int, attempt: int, lines: Sequence[str]) -> bool:
        return self._write(job_id, attempt, "machine", *lines)

    def record_macs(self, job_id: int, attempt: int, macs: Iterable[str]) -> Sequence[Concern]:
        """Record the MAC addresses of the job's machine; returns concerns about those that other jobs have."""
        with self.transaction(writes=True) as connection:
            migration = one(connection, job_id).migration
            if migration is None or not change(connection, fence(job_id, attempt), attempt=attempt):
                return ()
            found = tuple(replace_cards(connection, job_id, migration, macs))
            for concern in found:
                _warn(connection, job_id, attempt, str(concern))
            return found

    def reserve(self, job_id: int, attempt: int, reserved_bytes: int) -> bool:
        message = f"{size(reserved_bytes)} reserved"
        return self._write(job_id, attempt, "space-reserved", message, reserved_bytes=reserved_bytes)

    def succeed(self, job_id: int, attempt: int, note: str) -> bool:
        """Forget most of the products of the stages: no attempt will continue from them."""
        with self.transaction(writes=True) as connection:
            values = {**over(State.SUCCEEDED), "note": note, "progress": 1.0, "stage": None}
            if not change(connection, fence(job_id, attempt), **values):
                return is_now(connection, job_id, attempt, State.SUCCEEDED)
            keep_for_outcome(connection, job_id)
            record_at(connection, job_id, attempt, "succeeded", note)
            add_work(connection, datetime.now(UTC), succeeded=1)
            arrange_dependents(connection, job_id)
            return True

    def fail(
        self, job_id: int, attempt: int, problems: Sequence[Problem], *, keep_stages: bool, note: str = ""
    ) -> bool:
        with self.transaction(writes=True) as connection:
            shown = problems_adapter.dump_json(tuple(problems)).decode()
            values = {**over(State.FAILED), "problems": shown, "note": note}
            if not change(connection, fence(job_id, attempt), failures=jobs.c.failures + 1, **values):
                return is_now(connection, job_id, attempt, State.FAILED)
            forget_stages(connection, job_id, keep_stages)
            forget_cards(connection, job_id)
            record_at(connection, job_id, attempt, "failed", first_line(problems))
            add_work(connection, datetime.now(UTC), failed=1)
            arrange_dependents(connection, job_id)
            return True

    def hold_failed(
        self, job_id: int, attempt: int, problems: Sequence[Problem], *, keep_stages: bool, note: str
    ) -> bool:
        """Hold a job that a person has to help. Also returns False if its cancellation was requested meanwhile."""
        with self.transaction(writes=True) as connection:
            values = {
                **queued(),
                "state": State.HELD,
                "stage": jobs.c.stage,
                **UNDELAYED,
                "waiting_for": WaitingFor.REMEDY,
                "note": note,
                "problems": problems_adapter.dump_json(tuple(problems)).decode(),
            }
            where = *fence(job_id, attempt), jobs.c.cancelling.is_(False)
            if not change(connection, where, failures=jobs.c.failures + 1, **values):
                return is_now(connection, job_id, attempt, State.HELD)
            forget_stages(connection, job_id, keep_stages)
            record_at(connection, job_id, attempt, "held", first_line(problems))
            return True

    def requeue(
        self,
        job_id: int,
        attempt: int,
        note: str,
        *,
        keep_stages: bool,
        delay_seconds: float | None = None,
        problems: Sequence[Problem] = (),
        lacks_space: bool = False,
        for_space: bool = True,
    ) -> bool:
        """Give a running job back to the queue; with `problems`, it counts as a failed try, unless it `lacks_space`.

        `for_space`: a delay without problems is one until there is space.

        Also returns False if its cancellation was requested meanwhile.
        """
        now, failed = datetime.now(UTC), bool(problems) and not lacks_space
        delay = UNDELAYED if delay_seconds is None else delayed(delay_seconds, now, uptime())
        reason = WaitingFor.SPACE if for_space and not failed else WaitingFor.RETRY
        with self.transaction(writes=True) as connection:
            values = {
                **delay,
                "waiting_for": None if delay_seconds is None else reason,
                "note": note,
                "problems": problems_adapter.dump_json(tuple(problems)).decode(),
                "failures": jobs.c.failures + int(failed),
            }
            where = *fence(job_id, attempt), jobs.c.cancelling.is_(False)
            if not change(connection, where, **queued(), **values):
                return is_now(connection, job_id, attempt, State.QUEUED)
            forget_stages(connection, job_id, keep_stages)
            record_at(connection, job_id, attempt, "requeued", note)
            _wait_for_window(connection, one(connection, job_id), delay["not_before"] or now)
            return True

    def finish_cancelled(self, job_id: int, attempt: int, *, keep_stages: bool, note: str = "") -> bool:
        with self.transaction(writes=True) as connection:
            if not change(connection, fence(job_id, attempt), **over(State.CANCELLED), note=note):
                return is_now(connection, job_id, attempt, State.CANCELLED)
            forget_stages(connection, job_id, keep_stages)
            forget_cards(connection, job_id)
            record_at(connection, job_id, attempt, "cancelled")
            arrange_dependents(connection, job_id)
            return True

    def note_kept_folder(self, job_id: int, note: str) -> None:
        """Note for a failed or cancelled job that its working folder is kept."""
        with self.transaction(writes=True) as connection:
            change(connection, can_be_retried(job_id), note=note)

    def note_removed_folder(self, job_id: int, why: str) -> None:
        """Forget the stages of a job without a worker: its working folder is gone.

        The note of one that failed or was cancelled says so; that of a waiting one says what it waits for.
        """
        waits = jobs.c.id == job_id, jobs.c.state.in_((State.QUEUED, State.HELD))
        with self.transaction(writes=True) as connection:
            if change(connection, can_be_retried(job_id), note=f"working folder removed: {why}") or change(
                connection, waits, stage=jobs.c.stage
            ):
                forget_stages(connection, job_id, keep=False)
                record(connection, one(connection, job_id), "folder-removed", why)
                forget_early_events(connection, job_id)

    def forget_finished_stages(self, job_id: int) -> None:
        """Forget the stages of a failed or cancelled job without a working folder."""
        with self.transaction(writes=True) as connection:
            if change(connection, can_be_retried(job_id), stage=jobs.c.stage):
                forget_stages(connection, job_id, keep=False)

    def recover(self) -> Sequence[Job]:
        """Requeue jobs that a dead daemon left running, with their finished stages. Call it before any claim.

        Jobs that were being cancelled are cancelled. A job that daemons died with again and again has failed. Delays
        that began in an earlier boot begin anew.
        """
        with self.transaction(writes=True) as connection:
            restart_delays(connection, datetime.now(UTC), uptime())
            running = connection.execute(select(jobs).where(jobs.c.state == State.RUNNING)).mappings().all()
            for row in running:
                recover_job(connection, row)
            return [one(connection, row["id"]) for row in running]

    def requeue_unknown(self, known: Collection[int]) -> Sequence[int]:
        """Requeue running jobs except the `known` ones; returns their numbers.

        A claim whose answer was lost may have been put on record.
        """
        with self.transaction(writes=True) as connection:
            running = connection.execute(select(jobs).where(jobs.c.state == State.RUNNING)).mappings().all()
            lost = [row for row in running if row["id"] not in known]
            for row in lost:
                recover_job(connection, row, "the database did not respond")
            return [row["id"] for row in lost]

    def clock_jumped(self, now: datetime) -> None:
        """Correct the times that were computed by the wall clock before it jumped."""
        with self.transaction(writes=True) as connection:
            show_delays(connection, now, uptime())
            by_window = jobs.c.state == State.QUEUED, jobs.c.waiting_for == WaitingFor.WINDOW
            connection.execute(update(jobs).where(*by_window).values(not_before=now))
            pending = notifications.c.state == PENDING, notifications.c.next_try > now
            connection.execute(update(notifications).where(*pending).values(next_try=now))

    def clock_record(self) -> str | None:
        """What `keep_clock_record` was last given."""
        with self.transaction() as connection:
            return connection.execute(select(queue.c.clock)).scalar()

    def keep_clock_record(self, record: str) -> None:
        with self.transaction(writes=True) as connection:
            connection.execute(update(queue).values(clock=record))

    def _write(self, job_id: int, attempt: int, kind: str, *messages: str, **values: Any) -> bool:
        with self.transaction(writes=True) as connection:
            if not change(connection, fence(job_id, attempt), **(values or {"attempt": attempt})):
                return False
            if not has_events(connection, job_id, kind, *messages, attempt=attempt):
                for message in messages:
                    record_at(connection, job_id, attempt, kind, message)
            return True


def _start(job: Job, times: Times) -> Mapping[str, Any]:
    """As `start_of`. By a wall clock that is not trusted, the time of a job with a window or a time is unknown."""
    start = start_of(job.id, job.migration, times.wall)
    asked = job.migration
    if times.wall_trusted or asked is None or not (asked.window or asked.not_before) or start.get("waiting_for"):
        return start
    return {**start, "not_before": times.wall, "waiting_for": WaitingFor.WINDOW if asked.window else WaitingFor.TIME}


def _fail_unreadable(connection: Connection, job: Job) -> None:
    """It is kept as it is: another version may be able to read it."""
    problems = job.problems or (unreadable(job.id, ("migration",)),)
    shown = problems_adapter.dump_json(problems).decode()
    change(connection, (jobs.c.id == job.id,), **over(State.FAILED), problems=shown)
    forget_cards(connection, job.id)
    record(connection, job, "failed", first_line(problems))
    add_work(connection, datetime.now(UTC), failed=1)
    arrange_dependents(connection, job.id)
    log.error("%s", first_line(problems))


def _wait_for_window(connection: Connection, job: Job, moment: datetime) -> None:
    """For a job that could start again at that moment, but for its window. Its note stays what it is."""
    start = start_of(job.id, job.migration, moment)
    if start.get("state") is State.HELD:
        put(connection, job, **start)
    elif start.get("waiting_for") is not None:
        put(connection, job, not_before=start["not_before"], delay_until=None, waiting_for=start["waiting_for"])


def _warn(connection: Connection, job_id: int, attempt: int, message: str) -> bool:
    """Record a warning, and count it if the job has none of that text. False: this attempt has recorded it before."""
    if has_events(connection, job_id, WARNED, message, attempt=attempt):
        return False
    if not has_events(connection, job_id, WARNED, message):
        change(connection, (jobs.c.id == job_id,), warnings=jobs.c.warnings + 1)
    record_at(connection, job_id, attempt, WARNED, message)
    return True


def _claimed(connection: Connection, job: Job, now: datetime) -> Job:
    values = {
        "state": State.RUNNING,
        "attempt": jobs.c.attempt + 1,
        "started": now,
        "finished": None,
        **UNDELAYED,
        "waiting_for": None,
        "stage": None,
        "progress": 0.0,
        "note": "",
        "problems": "[]",
        "reserved_bytes": 0,
    }
    change(connection, (jobs.c.id == job.id,), **values)
    claimed = one(connection, job.id)
    record(connection, claimed, "claimed", f"attempt {claimed.attempt}")
    forget_early_events(connection, job.id)
    return claimed
