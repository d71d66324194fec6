"""What becomes of a job after an attempt: the kind of its failure decides between the queue, a person and the end."""

from __future__ import annotations

import logging
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hyper2kvmd.config import DaemonConfig, Retry
from hyper2kvmd.daemon.attempt import Attempt, Result
from hyper2kvmd.daemon.ended_folders import EndedFolders
from hyper2kvmd.daemon.journal import JobLog
from hyper2kvmd.daemon.kept import can_go_on
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.room import Request, Room
from hyper2kvmd.jobs.changes import first_line
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import LACKS_SPACE, Job, State
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.outcome import warnings_said
from hyper2kvmd.units import local_time

log = logging.getLogger(__name__)

SPACE_SECONDS = 600.0
"""After this time a job that waits for space plans again, even if no change was seen."""
BUSY_SECONDS = 60.0
"""The same for a job whose working folder another process uses, such as a worker of a daemon that died."""
LONGEST_DELAY_SECONDS = 86400.0
JITTER = 0.2
"""The largest part by which a delay is prolonged, so that jobs that failed together do not return together."""


def delay_before(failures: int, policy: Retry) -> float:
    """Seconds from a temporary failure to the next try, after `failures` earlier ones."""
    longest = LONGEST_DELAY_SECONDS / (1.0 + JITTER)
    factor = 1.0
    for _ in range(failures):
        factor = min(longest / max(policy.delay, 1.0), factor * policy.backoff)
    return min(longest, policy.delay * factor) * random.uniform(1.0, 1.0 + JITTER)  # noqa: S311


def _is_temporary(result: Result) -> bool:
    return result.crashed or result.outcome == "interrupted" or any(one.kind == "retry" for one in result.problems)


class Conclusions:
    def __init__(self, config: DaemonConfig, ledger: Ledger, metrics: Metrics, room: Room) -> None:
        self.config = config
        self.last_end = ""
        """How the last job ended, such as `web01 succeeded with 1 warning`."""
        self._ledger, self._metrics, self._room = ledger, metrics, room
        self._folders = EndedFolders()

    def conversion_dir(self, migration: Migration) -> Path:
        return migration.conversion_dir or self.config.conversion_dir

    def working_folder(self, job: Job) -> Path:
        """Of a job whose migration can be read."""
        assert job.migration is not None  # noqa: S101 - narrows the type
        return self.conversion_dir(job.migration) / f"{job.vm_name}.{job.id}"

    async def conclude(self, attempt: Attempt, order: Order, result: Result) -> None:
        job = attempt.job
        request = self._room.take_request(job.id)
        if result.outcome == "fenced":
            return
        full = not (request and request.denial) and bool(result.problems) and result.problems[0].code in LACKS_SPACE
        if not full:
            self._room.forget_full(job.id)
        if result.outcome == "succeeded":
            await self._succeed(job, result)
        elif attempt.cancelled:
            await self._finish_cancelled(job, order, kept=await self._keep_or_remove(order, result, over=True))
            JobLog(log, job.id).info("cancelled")
        elif attempt.stopped and _is_temporary(result):
            await self._requeue(job, order, "interrupted", result)
        elif full:
            await self._wait_after_full(job, order, result, request)
        elif result.outcome == "deferred":
            await self._postpone(job, order, result, request)
        else:
            await self._decide_by_kind(job, order, result)

    async def _wait_after_full(self, job: Job, order: Order, result: Result, request: Request | None) -> None:
        """`Room.wake_waiting` starts it again when there is space."""
        note = f"waiting for space: {first_line(result.problems)}"
        if await self._requeue(job, order, note, result, delay_seconds=SPACE_SECONDS, lacks_space=True):
            await self._room.wait_after_full(job, order, request)

    async def _succeed(self, job: Job, result: Result) -> None:
        ledger, store = self._ledger, self._ledger.store
        artifact = result.artifact or (await ledger.ensure(store.finished_stages, job.id)).artifact
        await ledger.ensure(store.succeed, job.id, job.attempt, str(artifact.disks[0].path) if artifact else "")
        self._metrics.ended(State.SUCCEEDED)
        warnings = (await ledger.ensure(store.get, job.id)).warnings
        self.last_end = f"{job.vm_name} succeeded{warnings_said(warnings)}"
        JobLog(log, job.id).info("%s", self.last_end)

    async def _postpone(self, job: Job, order: Order, result: Result, request: Request | None) -> None:
        """The job waits for space, or for a process that still uses its working folder: that is no failed try."""
        if request and request.denial:
            if await self._requeue(job, order, request.denial, result, delay_seconds=SPACE_SECONDS):
                self._room.wait(job, request.demand)
            return
        note = first_line(result.problems) or "postponed by its worker"
        await self._requeue(job, order, note, result, delay_seconds=BUSY_SECONDS, for_space=False)

    async def _decide_by_kind(self, job: Job, order: Order, result: Result) -> None:
        """An interruption that the daemon did not ask for counts as temporary."""
        store, policy = self._ledger.store, self.config.retry
        failures = await self._ledger.ensure(store.failures, job.id)
        problems = result.problems
        kind = problems[0].kind if problems else "permanent"
        if kind == "retry" and failures + 1 < policy.max_attempts:
            note = f"will be retried: {first_line(problems)}"
            await self._requeue(job, order, note, result, delay_seconds=delay_before(failures, policy))
        elif kind == "operator":
            await self._hold(job, order, result)
        else:
            await self._fail(job, order, result)

    async def _hold(self, job: Job, order: Order, result: Result) -> None:
        store, kept = self._ledger.store, await self._keep_or_remove(order, result, over=False)
        note = f"correct the cause, then run `h2kvmctl retry {job.id}`"
        if not await self._ledger.ensure(
            store.hold_failed, job.id, job.attempt, result.problems, keep_stages=kept, note=note
        ):
            await self._finish_cancelled(job, order, kept=kept)
            return
        self._metrics.held(result.problems)
        self.last_end = f"{job.vm_name} is held"
        JobLog(log, job.id).error("%s is held: %s", job.vm_name, first_line(result.problems))

    async def _fail(self, job: Job, order: Order, result: Result) -> None:
        kept = await self._keep_or_remove(order, result, over=True)
        note = self._kept_note() if kept else ""
        store = self._ledger.store
        await self._ledger.ensure(store.fail, job.id, job.attempt, result.problems, keep_stages=kept, note=note)
        self._metrics.ended(State.FAILED, result.problems)
        self.last_end = f"{job.vm_name} failed"
        summary = first_line(result.problems) or "no reason was given"
        JobLog(log, job.id).error("%s failed: %s", job.vm_name, summary)
        if kept:
            await self._room.restore_reserve(order.working_folder)

    async def _finish_cancelled(self, job: Job, order: Order, *, kept: bool) -> None:
        note = self._kept_note() if kept else ""
        store = self._ledger.store
        if await self._ledger.ensure(store.finish_cancelled, job.id, job.attempt, keep_stages=kept, note=note):
            self._metrics.ended(State.CANCELLED)
            if kept:
                await self._room.restore_reserve(order.working_folder)

    async def _requeue(
        self,
        job: Job,
        order: Order,
        note: str,
        result: Result,
        *,
        delay_seconds: float | None = None,
        lacks_space: bool = False,
        for_space: bool = True,
    ) -> bool:
        """Returns False if the job was cancelled at the last moment."""
        JobLog(log, job.id).warning("back in the queue: %s", note)
        store, kept = self._ledger.store, await self._keep_or_remove(order, result, over=False)
        requeued = await self._ledger.ensure(
            store.requeue,
            job.id,
            job.attempt,
            note,
            keep_stages=kept,
            delay_seconds=delay_seconds,
            problems=result.problems
            if delay_seconds is not None and (lacks_space or result.outcome != "deferred")
            else (),
            lacks_space=lacks_space,
            for_space=for_space,
        )
        if not requeued:
            await self._finish_cancelled(job, order, kept=kept)
        return requeued

    async def _keep_or_remove(self, order: Order, result: Result, *, over: bool) -> bool:
        """Keep the working folder for another attempt, or remove it; return whether it is kept.

        A finished job needs none once its machine is registered.
        """
        wanted = can_go_on(result.problems)
        if wanted and over:
            finished = await self._ledger.ensure(self._ledger.store.finished_stages, int(order.job_id))
            wanted = finished.registration is None and self.config.retention.conversions > 0
        named, allowed = order.conversion_dir, order.bounds.conversion_dirs
        return await self._folders.keep_or_remove(named, allowed, order.working_folder.name, wanted=wanted)

    async def tidy_cancelled(self, job: Job) -> None:
        """A job that was cancelled without a worker may have a folder of an earlier attempt."""
        if job.migration is None:
            return
        name, wanted = f"{job.vm_name}.{job.id}", self.config.retention.conversions > 0
        named, allowed = self.conversion_dir(job.migration), self.config.conversion_dirs
        if await self._folders.keep_or_remove(named, allowed, name, wanted=wanted):
            await self._ledger.ensure(self._ledger.store.note_kept_folder, job.id, self._kept_note())
        else:
            await self._ledger.ensure(self._ledger.store.forget_finished_stages, job.id)

    def _kept_note(self) -> str:
        until = datetime.now(UTC) + timedelta(days=self.config.retention.conversions)
        return f"working folder kept until {local_time(until)} or another job needs its space"
