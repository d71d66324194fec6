"""Which job runs when: slots, space, retries, cancelling, and what becomes of a job when its attempt has ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import hyper2kvmd
from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.attempt import GRACE_SECONDS, Attempt, Result
from hyper2kvmd.daemon.journal import JobLog
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.space import Demand, Space, volume_of
from hyper2kvmd.daemon.wire import Status
from hyper2kvmd.errors import Failure, TryLater
from hyper2kvmd.host import run
from hyper2kvmd.host.workspace import real_conversion_dir, working_folder
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Job, State
from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import AwaitingSpace

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
SPACE_SECONDS = 600.0
"""After this long a job that waits for space plans anew, even when nothing was seen to change."""
Mode = Literal["running", "paused", "draining", "stopping"]


class Scheduler:
    def __init__(self, config: DaemonConfig, ledger: Ledger, metrics: Metrics, worker: Sequence[str]) -> None:
        self.config = config
        self.mode: Mode = "running"
        self.drained = asyncio.Event()
        self.last_tick = time.monotonic()
        self._ledger, self._metrics, self._worker = ledger, metrics, tuple(worker)
        self._space = Space(config.space_reserve)
        self._attempts: dict[int, tuple[Attempt, asyncio.Task[None]]] = {}
        self._waiting: dict[int, Demand] = {}
        self._denied: dict[int, tuple[Demand, str]] = {}
        self._cancelling: set[int] = set()
        self._woken = asyncio.Event()

    def configure(self, config: DaemonConfig) -> None:
        """Take over what a reload can change; running jobs keep what they were started with."""
        self.config = config
        self._space.reserve = config.space_reserve
        self.wake()

    def wake(self) -> None:
        """Something changed: look at the queue at once."""
        self._woken.set()

    async def recover(self) -> None:
        """Take up where a dead daemon left off. Call it once, before `follow`."""
        for job in await self._ledger.call(self._ledger.store.recover):
            JobLog(log, job.id).warning("was running when the daemon died")
        if await self._ledger.call(self._ledger.store.paused):
            self.mode = "paused"

    async def follow(self, after_tick: Callable[[], object]) -> None:
        """Schedule until `quit`. `after_tick` is called whenever the work could be done.

        Raises what makes going on pointless: BrokenInstallation.
        """
        while self.mode != "stopping":
            self._woken.clear()
            try:
                await self._tick()
            except TryLater as failure:
                log.error("%s", failure)
            else:
                self.last_tick = time.monotonic()
                after_tick()
            try:
                await asyncio.wait_for(self._woken.wait(), TICK_SECONDS)
            except TimeoutError:
                continue

    async def _tick(self) -> None:
        for job_id, (_, task) in list(self._attempts.items()):
            if task.done():
                del self._attempts[job_id]
                task.result()
        for job_id, demand in list(self._waiting.items()):
            if await self._space.would_fit(demand):
                del self._waiting[job_id]
                await self._ledger.call(self._ledger.store.wake, [job_id])
        store = self._ledger.store
        await self._ledger.call(store.paused)  # a database that does not answer shows here, busy or not
        while self.mode == "running" and len(self._attempts) < self.config.max_concurrent_jobs:
            job = await self._ledger.call(store.claim, datetime.now(UTC))
            if job is None:
                break
            await self._start(job)
        if self.mode == "draining" and not self._attempts:
            self.drained.set()

    async def _start(self, job: Job) -> None:
        assert job.migration is not None  # noqa: S101 - only rejected jobs have none
        self._waiting.pop(job.id, None)
        self._metrics.claimed(job)
        order = Order(
            job_id=str(job.id),
            attempt=job.attempt,
            migration=job.migration,
            submitter=job.submitter,
            submitter_uid=job.submitter_uid,
            conversion_dir=self._conversion_dir(job.migration),
            output_dir=job.migration.output_dir or self.config.output_dir,
            helper=self.config.helper,
            bounds=self.config.bounds,
            space_reserve=self.config.space_reserve,
            limits=self.config.limits,
            finished=await self._ledger.insist(self._ledger.store.finished_stages, job.id),
        )

        async def admit(event: AwaitingSpace) -> bool:
            return await self._admit(job, order, event)

        attempt = Attempt(job, order, self._ledger, self._metrics, admit)
        if job.id in self._cancelling:
            attempt.cancel()
        self._attempts[job.id] = attempt, asyncio.create_task(self._carry_out(attempt, order))

    def _conversion_dir(self, migration: Migration) -> Path:
        return migration.conversion_dir or self.config.conversion_dir

    # ------------------------------------------------------------ space

    async def _admit(self, job: Job, order: Order, event: AwaitingSpace) -> bool:
        seen = event.publish_volume
        output = order.output_dir if seen is None or order.output_dir == self.config.output_dir else seen
        demand = Demand(_folder(order), event.needed_bytes, output, event.publish_bytes)
        lack = await self._space.admit(job.id, demand)
        if lack:
            self._denied[job.id] = demand, lack
            return False
        store = self._ledger.store
        return await self._ledger.insist(store.reserve, job.id, job.attempt, event.needed_bytes + event.publish_bytes)

    # ------------------------------------------------------------ the end of an attempt

    async def _carry_out(self, attempt: Attempt, order: Order) -> None:
        try:
            result = await attempt.run(self._worker)
        finally:
            self._space.settle(attempt.job.id)
        await self._conclude(attempt, order, result)
        self._cancelling.discard(attempt.job.id)
        self.wake()

    async def _conclude(self, attempt: Attempt, order: Order, result: Result) -> None:
        job, ledger, store = attempt.job, self._ledger, self._ledger.store
        denied = self._denied.pop(job.id, None)
        if result.outcome == "fenced":
            return
        if result.outcome == "succeeded":
            artifact = result.artifact or (await ledger.insist(store.finished_stages, job.id)).artifact
            await ledger.insist(store.succeed, job.id, job.attempt, str(artifact.disks[0].path) if artifact else "")
            self._metrics.ended(State.SUCCEEDED)
            JobLog(log, job.id).info("%s succeeded", job.vm_name)
        elif attempt.cancelled:
            await self._sweep(order, result)
            await ledger.insist(store.finish_cancelled, job.id, job.attempt, keep_stages=False)
            self._metrics.ended(State.CANCELLED)
            JobLog(log, job.id).info("cancelled")
        elif result.outcome == "deferred":
            later = datetime.now(UTC) + timedelta(seconds=SPACE_SECONDS)
            note = denied[1] if denied else "postponed by its worker"
            if await self._requeue(job, note, result, not_before=later) and denied:
                self._waiting[job.id] = denied[0]
        elif result.outcome == "interrupted" or (result.crashed and self.mode == "stopping"):
            await self._requeue(job, "interrupted", result)
        else:
            await self._fail_or_retry(job, order, result)

    async def _fail_or_retry(self, job: Job, order: Order, result: Result) -> None:
        ledger, store, policy = self._ledger, self._ledger.store, self.config.retry
        failures = await ledger.insist(store.failures, job.id)
        problems = result.problems
        summary = f"{problems[0].message} [{problems[0].code}]" if problems else "no reason was given"
        if problems and problems[0].kind == "retry" and failures + 1 < policy.max_attempts:
            later = datetime.now(UTC) + timedelta(seconds=policy.delay * policy.backoff**failures)
            await self._requeue(job, f"will be retried: {summary}", result, not_before=later)
            return
        await self._sweep(order, result)
        await ledger.insist(store.fail, job.id, job.attempt, problems, keep_stages=False)
        self._metrics.ended(State.FAILED, problems)
        JobLog(log, job.id).error("%s failed: %s", job.vm_name, summary)

    async def _requeue(self, job: Job, note: str, result: Result, *, not_before: datetime | None = None) -> bool:
        """Only a worker that ended without a word left its folder, and with it what its stages produced.

        False: the job was cancelled at the last moment.
        """
        JobLog(log, job.id).warning("back in the queue: %s", note)
        store = self._ledger.store
        requeued = await self._ledger.insist(
            store.requeue,
            job.id,
            job.attempt,
            note,
            keep_stages=result.crashed,
            not_before=not_before,
            problems=result.problems if result.outcome == "failed" else (),
        )
        if not requeued and await self._ledger.insist(
            store.finish_cancelled, job.id, job.attempt, keep_stages=result.crashed
        ):
            self._metrics.ended(State.CANCELLED)
        return requeued

    async def _sweep(self, order: Order, result: Result) -> None:
        """Remove what a worker left that could not do so itself and that no attempt will go on from."""
        if result.crashed:
            named, allowed = order.conversion_dir, order.bounds.conversion_dirs
            await asyncio.to_thread(_remove, named, allowed, order.migration.vm_name, order.job_id)

    # ------------------------------------------------------------ the operator

    async def cancel(self, job_id: int, by: str) -> Job:
        """Raises InvalidInput (`job-unknown`, `job-state`)."""
        self._cancelling.add(job_id)
        try:
            job = await self._ledger.call(self._ledger.store.cancel, job_id, by)
        except Failure:
            self._cancelling.discard(job_id)
            raise
        if job.state is State.CANCELLED:
            self._cancelling.discard(job_id)
            self._waiting.pop(job_id, None)
            self._metrics.ended(State.CANCELLED)
            if job.migration is not None:
                named, allowed = self._conversion_dir(job.migration), self.config.conversion_dirs
                await asyncio.to_thread(_remove, named, allowed, job.vm_name, str(job_id))
        elif job_id in self._attempts:
            self._attempts[job_id][0].cancel()
        self.wake()
        return job

    async def pause(self) -> None:
        """Start nothing new; the pause outlives the daemon."""
        await self._ledger.call(self._ledger.store.set_paused, True)
        if self.mode != "stopping":
            self.mode = "paused"

    async def resume(self) -> None:
        await self._ledger.call(self._ledger.store.set_paused, False)
        if self.mode != "stopping":
            self.mode = "running"
        self.wake()

    def drain(self) -> None:
        """Start nothing new; when the running jobs have ended, so does the daemon."""
        if self.mode != "stopping":
            self.mode = "draining"
        self.wake()

    def quit(self) -> None:
        """Start nothing new and let `follow` return."""
        self.mode = "stopping"
        self.wake()

    async def stop(self) -> None:
        """End the workers and give their jobs back, to go on from there. Call it when `follow` has returned."""
        for attempt, _ in self._attempts.values():
            attempt.abandon()
        tasks = [task for _, task in self._attempts.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=GRACE_SECONDS + 15)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def status(self) -> Status:
        store = self._ledger.store
        conversion_dir = self.config.conversion_dir
        try:
            free = (await asyncio.to_thread(volume_of, conversion_dir)).free
            reserved = await self._space.outstanding_on(conversion_dir)
        except OSError:  # a file system that is away has no space to offer
            free = reserved = 0
        return Status(
            version=hyper2kvmd.__version__,
            state=self.mode,
            counts=await self._ledger.call(store.counts),
            running=tuple(attempt.view() for attempt, task in self._attempts.values() if not task.done()),
            max_concurrent_jobs=self.config.max_concurrent_jobs,
            oldest_queued=await self._ledger.call(store.oldest_queued),
            conversion_dir=conversion_dir,
            conversion_free_bytes=free,
            conversion_reserved_bytes=reserved,
            confinement_available=run.confinement_available(),
        )


def _folder(order: Order) -> Path:
    return order.conversion_dir / f"{order.migration.vm_name}.{order.job_id}"


def _remove(named: Path, allowed: tuple[Path, ...], vm_name: str, job_id: str) -> None:
    """Remove a job's working folder, if it is there and nobody works in it."""
    try:
        conversion_dir = real_conversion_dir(named, allowed)
        if (conversion_dir / f"{vm_name}.{job_id}").is_dir():
            with working_folder(conversion_dir, vm_name, job_id):
                pass
    except (Failure, OSError) as failure:
        JobLog(log, job_id).warning("its working folder stays until `h2kvmctl gc` removes it: %s", failure)
