"""Decides which job runs when (slots, space, retries, cancelling), and the state of a job after an attempt."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import hyper2kvmd
from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.attempt import GRACE_SECONDS, Attempt, Result
from hyper2kvmd.daemon.ignored import IgnoredFiles
from hyper2kvmd.daemon.journal import JobLog
from hyper2kvmd.daemon.kept import Kept, KeptFolder, can_go_on, keep_or_remove, sufficient
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.sources import admission
from hyper2kvmd.daemon.space import Demand, Shortage, Space
from hyper2kvmd.daemon.wire import FileSystemRole, Status
from hyper2kvmd.errors import Failure, TryLater
from hyper2kvmd.host import run
from hyper2kvmd.jobs.attempts import Unsearched
from hyper2kvmd.jobs.candidates import Admits, directories_of
from hyper2kvmd.jobs.changes import first_line
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Job, State
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.outcome import warnings_said
from hyper2kvmd.progress import AwaitingSpace
from hyper2kvmd.units import local_time

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
SPACE_SECONDS = 600.0
"""After this time a job that waits for space plans again, even if no change was seen."""
Mode = Literal["running", "paused", "draining", "stopping"]


class Scheduler:
    def __init__(
        self,
        config: DaemonConfig,
        ledger: Ledger,
        metrics: Metrics,
        worker: Sequence[str],
        ignored: Callable[[], IgnoredFiles] = IgnoredFiles,
    ) -> None:
        """`ignored` returns the files in incoming/ that are no submissions."""
        self.config = config
        self.ignored = ignored
        self.mode: Mode = "running"
        self.drained = asyncio.Event()
        self.last_tick = time.monotonic()
        self.last_end = ""
        """How the last job ended, such as `web01 succeeded with 1 warning`."""
        self._ledger, self._metrics, self._worker = ledger, metrics, tuple(worker)
        self._space = Space(config.space_reserve)
        self._kept = Kept(ledger.store)
        self._attempts: dict[int, tuple[Attempt, asyncio.Task[None]]] = {}
        self._waiting: dict[int, Demand] = {}
        self._denied: dict[int, tuple[Demand, str]] = {}
        self._cancelling: set[int] = set()
        self._woken = asyncio.Event()
        self._sources_freed = False
        """Jobs that waited for their source may be admitted now."""
        self._started = datetime.now(UTC)

    def configure(self, config: DaemonConfig) -> None:
        """Apply the settings that a reload can change; running jobs keep those they were started with."""
        self.config = config
        self._space.reserve = config.space_reserve
        self._sources_freed = True
        self.wake()

    def wake(self) -> None:
        """Something changed: look at the queue at once."""
        self._woken.set()

    async def recover(self) -> None:
        """Continue where a dead daemon stopped. Call it once, before `follow`."""
        for job in await self._ledger.call(self._ledger.store.recover):
            JobLog(log, job.id).warning("was running when the daemon died")
            if job.state is State.CANCELLED and job.migration is not None:
                await self._keep_or_remove_of(job, self._conversion_dir(job.migration))
        if await self._ledger.call(self._ledger.store.paused):
            self.mode = "paused"

    async def follow(self, after_tick: Callable[[], object]) -> None:
        """Schedule until `quit`. `after_tick` is called after each run in which the database responded.

        Raises BrokenInstallation, after which continuing is pointless.
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
                self._sources_freed = self._sources_freed or self.config.max_per_source is not None
                task.result()
        await self._wake_waiting()
        store = self._ledger.store
        if self._sources_freed:
            await self._ledger.call(store.forget_busy_sources)
            self._sources_freed = False
        if self.mode != "running" or len(self._attempts) >= self.config.max_concurrent_jobs:
            await self._ledger.call(store.paused)  # checks the database when nothing is claimed
        while self.mode == "running" and len(self._attempts) < self.config.max_concurrent_jobs:
            try:
                job = await self._ledger.call(store.claim, datetime.now(UTC), self._admission())
            except Unsearched:
                self.wake()
                break
            if job is None:
                break
            await self._start(job)
        if self.mode == "draining" and not self._attempts:
            self.drained.set()

    def _admission(self) -> Admits | None:
        """What `max_per_source` allows beside the running jobs."""
        if self.config.max_per_source is None:
            return None
        running = (attempt.job.migration for attempt, _ in self._attempts.values())
        return admission(self.config.max_per_source, [directories_of(one) for one in running if one is not None])

    async def _wake_waiting(self) -> None:
        """Let jobs be claimed that wait for space and fit now, possibly in place of kept folders."""
        kept: Sequence[KeptFolder] | None = None
        for job_id, demand in list(self._waiting.items()):
            shortage = await self._space.shortage(demand)
            if shortage is not None:
                if kept is None:
                    kept = await self._kept_folders()
                others = [folder for folder in kept if folder.job_id != job_id]
                if not sufficient(others, shortage):
                    continue
                kept = ()  # they count for one job at a time
            del self._waiting[job_id]
            await self._ledger.call(self._ledger.store.wake, [job_id])

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
            virtio_win=self.config.virtio_win,
            bounds=self.config.bounds,
            space_reserve=self.config.space_reserve,
            limits=self.config.limits,
            finished=await self._ledger.ensure(self._ledger.store.finished_stages, job.id),
            notes=job.notes,
        )

        async def admit(event: AwaitingSpace) -> bool:
            return await self._admit(job, order, event)

        attempt = Attempt(job, order, self._ledger, self._metrics, admit, self.config.stall_after)
        if job.id in self._cancelling:
            attempt.cancel()
        self._attempts[job.id] = attempt, asyncio.create_task(self._carry_out(attempt, order))

    def _conversion_dir(self, migration: Migration) -> Path:
        return migration.conversion_dir or self.config.conversion_dir

    # ------------------------------------------------------------ space

    async def _admit(self, job: Job, order: Order, event: AwaitingSpace) -> bool:
        seen = event.publish_file_system
        output = order.output_dir if seen is None or order.output_dir == self.config.output_dir else seen
        demand = Demand(order.working_folder, event.needed_bytes, output, event.publish_bytes)
        shortage = await self._space.admit(job.id, demand)
        while shortage is not None and await self._make_room(shortage, f"job {job.id} needed the space"):
            shortage = await self._space.admit(job.id, demand)
        if shortage is not None:
            self._denied[job.id] = demand, shortage.note
            return False
        store = self._ledger.store
        return await self._ledger.ensure(store.reserve, job.id, job.attempt, event.needed_bytes + event.publish_bytes)

    async def _kept_folders(self) -> tuple[KeptFolder, ...]:
        return await asyncio.to_thread(self._kept.folders, self.config.conversion_dirs, frozenset(self._waiting))

    async def _make_room(self, shortage: Shortage, why: str, *, all_needed: bool = True) -> bool:
        """Remove kept folders, if they are `sufficient`; return whether any was removed."""
        try:
            chosen = sufficient(await self._kept_folders(), shortage, all_needed=all_needed)
            return await asyncio.to_thread(self._kept.remove, chosen, why)
        except TryLater as failure:
            log.error("%s", failure)
            return False

    async def _restore_reserve(self, folder: Path) -> None:
        """Remove kept folders, even if too few, when the file system of one that was just kept is too full."""
        shortage = await self._space.shortage(Demand(folder, 0, self.config.output_dir, 0))
        if shortage is not None:
            await self._make_room(shortage, "the file system was full up to space_reserve", all_needed=False)

    # ------------------------------------------------------------ the end of an attempt

    async def _carry_out(self, attempt: Attempt, order: Order) -> None:
        try:
            result = await attempt.run(self._worker)
        finally:
            self._space.release(attempt.job.id)
        await self._conclude(attempt, order, result)
        self._cancelling.discard(attempt.job.id)
        self.wake()

    async def _conclude(self, attempt: Attempt, order: Order, result: Result) -> None:
        job, ledger, store = attempt.job, self._ledger, self._ledger.store
        denied = self._denied.pop(job.id, None)
        if result.outcome == "fenced":
            return
        if result.outcome == "succeeded":
            artifact = result.artifact or (await ledger.ensure(store.finished_stages, job.id)).artifact
            await ledger.ensure(store.succeed, job.id, job.attempt, str(artifact.disks[0].path) if artifact else "")
            self._metrics.ended(State.SUCCEEDED)
            warnings = (await ledger.ensure(store.get, job.id)).warnings
            self.last_end = f"{job.vm_name} succeeded{warnings_said(warnings)}"
            JobLog(log, job.id).info("%s", self.last_end)
        elif attempt.cancelled:
            await self._finish_cancelled(job, order, kept=await self._keep_or_remove(order, result, over=True))
            JobLog(log, job.id).info("cancelled")
        elif result.outcome == "deferred":
            later = datetime.now(UTC) + timedelta(seconds=SPACE_SECONDS)
            note = denied[1] if denied else "postponed by its worker"
            if await self._requeue(job, order, note, result, not_before=later) and denied:
                self._waiting[job.id] = denied[0]
        elif result.outcome == "interrupted" or (result.crashed and self.mode == "stopping"):
            await self._requeue(job, order, "interrupted", result)
        else:
            await self._fail_or_retry(job, order, result)

    async def _fail_or_retry(self, job: Job, order: Order, result: Result) -> None:
        ledger, store, policy = self._ledger, self._ledger.store, self.config.retry
        failures = await ledger.ensure(store.failures, job.id)
        problems = result.problems
        summary = first_line(problems) or "no reason was given"
        if problems and problems[0].kind == "retry" and failures + 1 < policy.max_attempts:
            later = datetime.now(UTC) + timedelta(seconds=policy.delay * policy.backoff**failures)
            await self._requeue(job, order, f"will be retried: {summary}", result, not_before=later)
            return
        kept = await self._keep_or_remove(order, result, over=True)
        note = self._kept_note() if kept else ""
        await ledger.ensure(store.fail, job.id, job.attempt, problems, keep_stages=kept, note=note)
        self._metrics.ended(State.FAILED, problems)
        self.last_end = f"{job.vm_name} failed"
        JobLog(log, job.id).error("%s failed: %s", job.vm_name, summary)
        if kept:
            await self._restore_reserve(order.working_folder)

    async def _finish_cancelled(self, job: Job, order: Order, *, kept: bool) -> None:
        note = self._kept_note() if kept else ""
        store = self._ledger.store
        if await self._ledger.ensure(store.finish_cancelled, job.id, job.attempt, keep_stages=kept, note=note):
            self._metrics.ended(State.CANCELLED)
            if kept:
                await self._restore_reserve(order.working_folder)

    async def _requeue(
        self, job: Job, order: Order, note: str, result: Result, *, not_before: datetime | None = None
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
            not_before=not_before,
            problems=result.problems if result.outcome == "failed" else (),
        )
        if not requeued:
            await self._finish_cancelled(job, order, kept=kept)
        return requeued

    async def _keep_or_remove(self, order: Order, result: Result, *, over: bool) -> bool:
        """Keep the working folder for another attempt, or remove it; return whether it is kept.

        A finished job needs none once its images are published.
        """
        wanted = can_go_on(result.problems)
        if wanted and over:
            finished = await self._ledger.ensure(self._ledger.store.finished_stages, int(order.job_id))
            wanted = finished.artifact is None and self.config.retention.conversions > 0
        named, allowed = order.conversion_dir, order.bounds.conversion_dirs
        return await asyncio.to_thread(keep_or_remove, named, allowed, order.working_folder.name, wanted=wanted)

    def _kept_note(self) -> str:
        until = datetime.now(UTC) + timedelta(days=self.config.retention.conversions)
        return f"working folder kept until {local_time(until)} or another job needs its space"

    # ------------------------------------------------------------ the operator

    async def cancel(self, job_id: int, by: str) -> Job:
        """Raises NotFound (`job-unknown`) or InvalidInput (`job-state`)."""
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
                await self._keep_or_remove_of(job, self._conversion_dir(job.migration))
        elif job_id in self._attempts:
            self._attempts[job_id][0].cancel()
        self.wake()
        return job

    async def _keep_or_remove_of(self, job: Job, conversion_dir: Path) -> None:
        """A job that was cancelled without a worker may have a folder of an earlier attempt."""
        name, wanted = f"{job.vm_name}.{job.id}", self.config.retention.conversions > 0
        allowed = self.config.conversion_dirs
        if await asyncio.to_thread(keep_or_remove, conversion_dir, allowed, name, wanted=wanted):
            await self._ledger.call(self._ledger.store.note_kept_folder, job.id, self._kept_note())
        else:
            await self._ledger.call(self._ledger.store.forget_finished_stages, job.id)

    async def pause(self) -> None:
        """Start no more jobs; the pause survives a restart of the daemon."""
        await self._ledger.call(self._ledger.store.set_paused, True)
        if self.mode != "stopping":
            self.mode = "paused"

    async def resume(self) -> None:
        await self._ledger.call(self._ledger.store.set_paused, False)
        if self.mode != "stopping":
            self.mode = "running"
        self.wake()

    def drain(self) -> None:
        """Finish the running jobs, then stop the daemon."""
        if self.mode != "stopping":
            self.mode = "draining"
        self.wake()

    def quit(self) -> None:
        """Start no more jobs and let `follow` return."""
        self.mode = "stopping"
        self.wake()

    async def stop(self) -> None:
        """Kill the workers and requeue their jobs, which continue from there. Call it when `follow` has returned."""
        for attempt, _ in self._attempts.values():
            attempt.abandon()
        tasks = [task for _, task in self._attempts.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=GRACE_SECONDS + 15)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def status(self, owner: int | None = None) -> Status:
        """With the ignored files of everybody, or of the uid `owner`."""
        config = self.config
        ignored, ignored_count = self.ignored().shown_to(owner)
        counts, oldest_queued = await self._ledger.call(self._ledger.store.overview)
        directories: dict[FileSystemRole, Path] = {
            "conversion": config.conversion_dir,
            "output": config.output_dir,
            "state": config.state_dir,
            "spool": config.spool_dir,
        }
        file_systems = await self._space.file_systems(directories)
        conversion = next((one for one in file_systems if "conversion" in one.roles), None)
        running = tuple(attempt.view() for attempt, task in self._attempts.values() if not task.done())
        return Status(
            version=hyper2kvmd.__version__,
            state=self.mode,
            counts=counts,
            running=running,
            max_concurrent_jobs=config.max_concurrent_jobs,
            oldest_queued=oldest_queued,
            conversion_dir=config.conversion_dir,
            conversion_free_bytes=conversion.free if conversion else 0,
            conversion_reserved_bytes=conversion.promised if conversion else 0,
            confinement_available=run.confinement_available(),
            hostname=socket.gethostname(),
            started=self._started,
            slots_used=len(running),
            file_systems=file_systems,
            ignored=ignored,
            ignored_count=ignored_count,
            notifications=await self._ledger.call(self._ledger.store.delivery_states),
        )
