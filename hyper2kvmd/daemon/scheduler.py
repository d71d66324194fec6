"""Decides which job runs when: slots, space, pauses, and what an operator asks for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple, get_args

import hyper2kvmd
from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.attempt import GRACE_SECONDS, STOP_SECONDS, Attempt
from hyper2kvmd.daemon.conclusions import Conclusions
from hyper2kvmd.daemon.ignored import IgnoredFiles
from hyper2kvmd.daemon.journal import JobLog
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.opening import directory_of
from hyper2kvmd.daemon.room import Room
from hyper2kvmd.daemon.sources import admission
from hyper2kvmd.daemon.stall import StallWatch
from hyper2kvmd.daemon.storage import Storage
from hyper2kvmd.daemon.wall_clock import SETTLING_SECONDS, ClockRecord, WallClock
from hyper2kvmd.daemon.wire import FileSystemFault, FileSystemRole, RunningJob, Status
from hyper2kvmd.errors import Failure, TryLater
from hyper2kvmd.host import run
from hyper2kvmd.jobs.attempts import Unsearched
from hyper2kvmd.jobs.candidates import Admits, directories_of
from hyper2kvmd.jobs.changes import first_line
from hyper2kvmd.model.jobs import Counts, Job, State
from hyper2kvmd.model.notifications import DestinationState
from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import AwaitingSpace
from hyper2kvmd.units import duration, local_time
from hyper2kvmd.uptime import uptime

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
Mode = Literal["running", "paused", "draining", "stopping"]
"""Jobs by state, the submission time of the oldest queued one, and the destinations of notifications."""


class Headline(NamedTuple):
    """What the line in `systemctl status` is made of."""

    state: Mode
    counts: Counts
    running: tuple[RunningJob, ...]
    faults: tuple[FileSystemFault, ...]
    waiting_for_space: int


class Scheduler:
    def __init__(
        self,
        config: DaemonConfig,
        ledger: Ledger,
        metrics: Metrics,
        worker: Sequence[str],
        storage: Storage,
        ignored: Callable[[], IgnoredFiles] = IgnoredFiles,
    ) -> None:
        """`ignored` returns the files in incoming/ that are no submissions."""
        self.config = config
        self.ignored, self.storage = ignored, storage
        self.mode: Mode = "running"
        self.drained = asyncio.Event()
        self.last_tick = time.monotonic()
        self._ledger, self._metrics, self._worker = ledger, metrics, tuple(worker)
        self._room = Room(config, ledger)
        self._conclusions = Conclusions(config, ledger, metrics, self._room)
        self._attempts: dict[int, tuple[Attempt, asyncio.Task[None]]] = {}
        self._last_record: tuple[Counts, datetime | None] | None = None
        self._last_deliveries: tuple[DestinationState, ...] = ()
        self._claimed: Job | None = None
        """A job that is claimed and not started yet: the database did not respond in between."""
        self._claim_lost = False
        """The database did not respond to a claim, which may be on record."""
        self._cancelling: set[int] = set()
        self._clock, self._clock_changed = WallClock(), False
        self._kept_record: ClockRecord | None = None
        self._woken = asyncio.Event()
        self._sources_freed = True
        """Jobs that waited for their source or a directory may be admitted now, as after a start."""
        self._started = datetime.now(UTC)

    def configure(self, config: DaemonConfig) -> None:
        """Apply the settings that a reload can change; running jobs keep those they were started with."""
        self.config = self._conclusions.config = config
        self._room.configure(config)
        self._sources_freed = True
        self.wake()

    @property
    def last_end(self) -> str:
        """How the last job ended, such as `web01 succeeded with 1 warning`."""
        return self._conclusions.last_end

    def storage_changed(self) -> None:
        """Jobs that waited for a file system may be started now, or others have to wait."""
        self._sources_freed = True
        self.wake()

    def wake(self) -> None:
        """Something changed: look at the queue at once."""
        self._woken.set()

    async def recover(self) -> None:
        """Continue where a dead daemon stopped. Call it once, before `follow`."""
        store = self._ledger.store
        record = await self._ledger.ensure(store.clock_record)
        with contextlib.suppress(ValueError):  # of another version, or damaged
            self._kept_record = ClockRecord.model_validate_json(record) if record else None
        self._clock = WallClock(self._kept_record)
        for job in await self._ledger.ensure(store.recover):
            JobLog(log, job.id).warning("was running when the daemon died")
            if job.state is State.FAILED:
                self._metrics.ended(State.FAILED, job.problems)
                JobLog(log, job.id).error("%s failed: %s", job.vm_name, first_line(job.problems))
            if job.state in (State.CANCELLED, State.FAILED):
                await self._conclusions.tidy_cancelled(job)
        for job in await self._ledger.ensure(store.waiting_for_space):
            self._room.wait_again(job, self._conclusions.working_folder(job))
        if await self._ledger.ensure(store.paused):
            self.mode = "paused"

    async def follow(self, after_round: Callable[[], object]) -> None:
        """Schedule until `quit`. `after_round` is called after each round, also if the database did not respond.

        Raises BrokenInstallation, after which continuing is pointless.
        """
        while self.mode != "stopping":
            self._woken.clear()
            try:
                await self._tick()
            except TryLater as failure:
                self._ledger.report(failure)
            else:
                self.last_tick = time.monotonic()
            after_round()
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
        await self._look_at_clock()
        await self._room.wake_waiting()
        if self.storage.conversion_is_full:
            await self._room.relieve()
        store = self._ledger.store
        if self._sources_freed:
            await self._ledger.call(store.forget_busy_sources)
            self._sources_freed = False
        if self._claim_lost:
            await self._requeue_unknown()
        if self.mode != "running" or len(self._attempts) >= self.config.max_concurrent_jobs:
            await self._ledger.call(store.paused)  # checks the database when nothing is claimed
        while self.mode == "running" and len(self._attempts) < self.config.max_concurrent_jobs:
            try:
                self._claimed = self._claimed or await self._claim()
            except Unsearched:
                self.wake()
                break
            if self._claimed is None:
                break
            await self._start(self._claimed)
            self._claimed = None
        if self.mode == "draining" and not self._attempts:
            self.drained.set()

    async def _claim(self) -> Job | None:
        trusted = self._clock.trusted(uptime())
        claim = self._ledger.store.claim
        usable = self.storage.usable()
        try:
            return await self._ledger.call(claim, datetime.now(UTC), self._admission(), usable, wall_trusted=trusted)
        except TryLater:
            self._claim_lost = True
            raise

    async def _requeue_unknown(self) -> None:
        """Jobs that are running by the record, and that this daemon does not know."""
        known = {*self._attempts, *(job.id for job in (self._claimed,) if job is not None)}
        for job_id in await self._ledger.call(self._ledger.store.requeue_unknown, known):
            JobLog(log, job_id).warning("back in the queue: the database did not respond to its claim")
        self._claim_lost = False

    async def _look_at_clock(self) -> None:
        """Log a jump of the wall clock, and correct the times that were computed by it."""
        now = datetime.now(UTC)
        before = self._clock.record
        jump = self._clock.look(now, uptime())
        if jump is not None and before is not None:
            log.warning(
                "the clock of this host jumped from %s to %s: jobs with a window or a not_before wait until it was"
                " regular for %s",
                local_time(now - jump),
                local_time(now),
                duration(SETTLING_SECONDS),
            )
        self._clock_changed = self._clock_changed or jump is not None or before is None
        store, record = self._ledger.store, self._clock.record
        if self._clock_changed:
            await self._ledger.call(store.clock_jumped, now)
        if record is not None and (self._clock_changed or self._clock.is_news(self._kept_record)):
            await self._ledger.call(store.keep_clock_record, record.model_dump_json())
            self._kept_record, self._clock_changed = record, False

    def _admission(self) -> Admits | None:
        """What `max_per_source` allows beside the running jobs."""
        if self.config.max_per_source is None:
            return None
        running = (attempt.job.migration for attempt, _ in self._attempts.values())
        return admission(self.config.max_per_source, [directories_of(one) for one in running if one is not None])

    async def _start(self, job: Job) -> None:
        assert job.migration is not None  # noqa: S101 - only rejected jobs have none
        self._room.forget(job.id)
        self._metrics.claimed(job)
        order = Order(
            job_id=str(job.id),
            attempt=job.attempt,
            migration=job.migration,
            submitter=job.submitter,
            submitter_uid=job.submitter_uid,
            conversion_dir=self._conclusions.conversion_dir(job.migration),
            output_dir=job.migration.output_dir or self.config.output_dir,
            helper=self.config.helper,
            virtio_win=self.config.virtio_win,
            bounds=self.config.bounds,
            space_reserve=self.config.space_reserve,
            limits=self.config.limits,
            finished=await self._ledger.call(self._ledger.store.finished_stages, job.id),
            notes=job.notes,
        )

        async def admit(event: AwaitingSpace) -> bool:
            return await self._room.admit(job, order, event)

        attempt = Attempt(job, order, self._ledger, self._metrics, admit, self._stall_watch())
        if job.id in self._cancelling:
            attempt.cancel()
        self._attempts[job.id] = attempt, asyncio.create_task(self._carry_out(attempt, order))

    def _stall_watch(self) -> StallWatch:
        return StallWatch(self.config.stall_after, self.config.stall_retry_after)

    async def _carry_out(self, attempt: Attempt, order: Order) -> None:
        try:
            result = await attempt.run(self._worker)
        finally:
            self._room.release(attempt.job.id)
        await self._conclusions.conclude(attempt, order, result)
        self._cancelling.discard(attempt.job.id)
        self.wake()

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
            self._room.forget(job_id)
            self._room.forget_full(job_id)
            self._metrics.ended(State.CANCELLED)
            await self._conclusions.tidy_cancelled(job)
        elif job_id in self._attempts:
            self._attempts[job_id][0].cancel()
        self.wake()
        return job

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
        """End the workers and requeue their jobs, which continue from there. Call it when `follow` has returned.

        It takes less than the unit's TimeoutStopSec.
        """
        if self._claimed is not None:
            with contextlib.suppress(TryLater):
                store, job = self._ledger.store, self._claimed
                await self._ledger.call(store.requeue, job.id, job.attempt, "interrupted", keep_stages=True)
        for attempt, _ in self._attempts.values():
            attempt.stop()
        tasks = [task for _, task in self._attempts.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS + GRACE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def status(self, owner: int | None = None) -> Status:
        """With the ignored files of everybody, or of the uid `owner`."""
        config = self.config
        ignored, ignored_count = self.ignored().shown_to(owner)
        counts, oldest_queued = await self._on_record()
        # of the same moment as the counts: a job that starts now must not be in both
        running = self._running()
        notifications = await self._deliveries()
        directories = {role: directory_of(role, config) for role in get_args(FileSystemRole)}
        file_systems = await self._room.file_systems(directories)
        conversion = next((one for one in file_systems if "conversion" in one.roles), None)
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
            notifications=notifications,
            faults=self.storage.faults,
            waiting_for_space=self._room.waiting_jobs,
        )

    async def headline(self) -> Headline:
        """The part of the status for which no file system is examined."""
        counts, _ = await self._on_record()
        return Headline(self.mode, counts, self._running(), self.storage.faults, self._room.waiting_jobs)

    def _running(self) -> tuple[RunningJob, ...]:
        return tuple(attempt.view() for attempt, task in self._attempts.values() if not task.done())

    async def _on_record(self) -> tuple[Counts, datetime | None]:
        """From the database; what it said last while its file system has a fault."""
        try:
            self._last_record = await self._ledger.call(self._ledger.store.overview)
        except TryLater:
            if self._last_record is None or not self._state_at_fault():
                raise
        return self._last_record

    async def _deliveries(self) -> tuple[DestinationState, ...]:
        """The same of the notifications."""
        try:
            self._last_deliveries = await self._ledger.call(self._ledger.store.delivery_states)
        except TryLater:
            if not self._state_at_fault():
                raise
        return self._last_deliveries

    def _state_at_fault(self) -> bool:
        return any(fault.role == "state" for fault in self.storage.faults)
