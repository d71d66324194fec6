"""The space of jobs: who gets it, who waits for it, and which kept folders are removed for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.kept import Kept, KeptFolder, Place, place_of, sufficient
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.space import LEAST_GROWTH, Demand, Shortage, Space
from hyper2kvmd.daemon.storage import in_time
from hyper2kvmd.daemon.threads import Looks, in_a_thread
from hyper2kvmd.daemon.wire import FileSystemRole, FileSystemUse
from hyper2kvmd.errors import TryLater
from hyper2kvmd.model.jobs import Job
from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import AwaitingSpace

log = logging.getLogger(__name__)

FULL_SECONDS, LONGEST_FULL_SECONDS = 2.0, 600.0
"""The shortest and the longest pause after a write without space, whatever the file system reports.

It does not report quotas, and what is free may be used up again within a moment.
"""

SETTLING_SECONDS = 35.0
"""From the end of one removal to the next one: btrfs shows the space of removed files when it commits, every 30 s."""


@dataclass(frozen=True)
class Request:
    """What an attempt asked for."""

    demand: Demand
    denial: str = ""
    """What was missing; empty if it was promised."""


@dataclass(frozen=True)
class _Full:
    """A job whose last attempts all ended because a write found no space."""

    pause: float
    """The last one, in seconds."""
    conversion: int
    """Bytes for its working folder: later requests are for no less."""


@dataclass(frozen=True)
class _Waiter:
    demand: Demand
    place: Place
    pause_until: float = 0.0
    """Monotonic."""
    is_known: bool = True
    """False after a restart of the daemon: the job asks again when it can write a little more."""

    @property
    def pauses(self) -> bool:
        return time.monotonic() < self.pause_until


class Room:
    def __init__(self, config: DaemonConfig, ledger: Ledger) -> None:
        self._ledger = ledger
        self._space = Space(config.space_reserve)
        self._kept = Kept(ledger.store)
        self._waiting: dict[int, _Waiter] = {}
        self._looks = Looks()
        self._requests: dict[int, Request] = {}
        self._full: dict[int, _Full] = {}
        self._removal: asyncio.Future[bool] | None = None
        """The one that the scheduler has begun."""
        self._settled = 0.0
        """When the space of the last one is seen (monotonic)."""
        self.configure(config)

    def configure(self, config: DaemonConfig) -> None:
        self._config = config
        self._space.reserve = config.space_reserve

    async def admit(self, job: Job, order: Order, event: AwaitingSpace) -> bool:
        """Whether the job gets the space it asks for; kept folders are removed for it."""
        seen = event.publish_file_system
        output = order.output_dir if seen is None or order.output_dir == self._config.output_dir else seen
        full = self._full.get(job.id)
        needed = max(event.needed_bytes, full.conversion) if full else event.needed_bytes
        demand = Demand(order.working_folder, needed, output, event.publish_bytes)
        shortage = await self._space.admit(job.id, demand)
        while shortage is not None and await self._make_for(job, shortage):
            shortage = await self._space.admit(job.id, demand)
        self._requests[job.id] = Request(demand, shortage.note if shortage else "")
        if shortage is not None:
            return False
        store = self._ledger.store
        return await self._ledger.ensure(store.reserve, job.id, job.attempt, needed + event.publish_bytes)

    def release(self, job_id: int) -> None:
        """Nothing is promised to the job any more."""
        self._space.release(job_id)

    def take_request(self, job_id: int) -> Request | None:
        """What the attempt of the job asked for last; None if it asked for nothing."""
        return self._requests.pop(job_id, None)

    def wait(self, job: Job, demand: Demand) -> None:
        """The job is in the queue until `demand` can be met."""
        self._waiting[job.id] = _Waiter(demand, place_of(job))

    def wait_again(self, job: Job, folder: Path) -> None:
        """The same for a job that waits since before the start of this daemon."""
        demand = Demand(folder, 0, self._config.output_dir, 0)
        self._waiting[job.id] = _Waiter(demand, place_of(job), is_known=False)

    async def wait_after_full(self, job: Job, order: Order, request: Request | None) -> None:
        """The same after a write without space; each time in a row it waits twice as long, at least."""
        asked = request.demand if request else Demand(order.working_folder, 0, self._config.output_dir, 0)
        demand, last = await self._space.after_full(asked), self._full.get(job.id)
        pause = min(2 * last.pause, LONGEST_FULL_SECONDS) if last else FULL_SECONDS
        self._full[job.id] = _Full(pause, demand.conversion)
        self._waiting[job.id] = _Waiter(demand, place_of(job), time.monotonic() + pause)

    def forget_full(self, job_id: int) -> None:
        """The job has succeeded, or has ended for another reason than space."""
        self._full.pop(job_id, None)

    def forget(self, job_id: int) -> None:
        """The job does not wait any longer."""
        self._waiting.pop(job_id, None)

    @property
    def waiting_jobs(self) -> int:
        """How many jobs wait for space."""
        return len(self._waiting)

    async def wake_waiting(self) -> None:
        """Let jobs be claimed that wait for space and fit now, possibly in place of kept folders."""
        kept: Sequence[KeptFolder] | None = None
        for job_id, waiter in sorted(self._waiting.items(), key=lambda item: item[1].place):
            if waiter.pauses:
                continue
            demand = waiter.demand if waiter.is_known else await self._space.after_full(waiter.demand)
            shortage = await self._space.shortage(demand)
            if shortage is not None:
                if shortage.device is None:
                    continue
                if kept is None:
                    kept = await self._kept_folders()
                chosen = sufficient(self._removable_for(waiter.place, kept), shortage)
                if not chosen:
                    continue
                kept = ()  # they count for one job at a time
                if shortage.full:  # no job is claimed while nothing can be written there
                    self._begin_removal(chosen, f"job {job_id} needed the space")
                    continue
            await self._ledger.call(self._ledger.store.wake, [job_id])
            self._waiting.pop(job_id, None)

    async def relieve(self) -> None:
        """Remove kept folders if the conversion directory is full.

        No job that could request their space is claimed then. Folders from which no queued job continues go first. If
        there are none and no job pauses, the folder of the last queued job goes, but never that of the first one.
        """
        shortage = await self._space.shortage(
            Demand(self._config.conversion_dir / ".relief", LEAST_GROWTH, self._config.output_dir, 0)
        )
        if shortage is not None and shortage.full:
            unqueued = [one for one in await self._kept_folders() if one.place is None]
            chosen = sufficient(unqueued, shortage, all_needed=False)
            if not chosen and not any(waiter.pauses for waiter in self._waiting.values()):
                chosen = sufficient(await self._queued_folders(), shortage, all_needed=False)[:1]
            self._begin_removal(chosen, "the file system was full")

    async def restore_reserve(self, folder: Path) -> None:
        """Remove kept folders, even if too few, when the file system of one that was just kept is too full."""
        shortage = await self._space.shortage(Demand(folder, 0, self._config.output_dir, 0))
        if shortage is not None:
            ended = [one for one in await self._kept_folders() if not one.held and one.place is None]
            await self._remove(
                sufficient(ended, shortage, all_needed=False), "the file system was full up to space_reserve"
            )

    async def file_systems(self, directories: Mapping[FileSystemRole, Path]) -> tuple[FileSystemUse, ...]:
        return await self._space.file_systems(directories)

    async def _kept_folders(self) -> tuple[KeptFolder, ...]:
        """Empty while a conversion directory or the database does not respond."""
        return await self._folders("kept folders", {job_id: waiter.place for job_id, waiter in self._waiting.items()})

    async def _queued_folders(self) -> Sequence[KeptFolder]:
        """The folders of all queued jobs but the first one, in the order of the queue."""
        places = await self._ledger.call(self._ledger.store.queued_places)
        found = await self._folders("queued folders", places)
        queued = [(one.place, one) for one in found if one.place is not None]
        return [one for _, one in sorted(queued, key=itemgetter(0))][1:]

    async def _folders(self, purpose: str, waiting: Mapping[int, Place]) -> tuple[KeptFolder, ...]:
        directories = self._config.conversion_dirs
        try:
            return await self._looks.in_time(purpose, lambda: self._kept.folders(directories, waiting), shared=True)
        except (TimeoutError, TryLater):
            return ()

    def _removable_for(self, place: Place, kept: Iterable[KeptFolder]) -> Sequence[KeptFolder]:
        """Those that a job at that place of the queue may have removed.

        An earlier job that waits keeps its folder during its pause. After the pause, its own turn comes first.
        """
        pausing = {job_id for job_id, waiter in self._waiting.items() if waiter.pauses}
        return [
            one
            for one in kept
            if one.place is None or one.place > place or (one.place < place and one.job_id not in pausing)
        ]

    async def _make_for(self, job: Job, shortage: Shortage) -> bool:
        """Remove kept folders, if they are `sufficient`; return whether any was removed."""
        if shortage.device is None:
            return False
        chosen = sufficient(self._removable_for(place_of(job), await self._kept_folders()), shortage)
        return await self._remove(chosen, f"job {job.id} needed the space")

    def _begin_removal(self, folders: Sequence[KeptFolder], why: str) -> None:
        """As `_remove`, but in a thread, one removal after the other: the scheduler does not wait for large files."""
        if self._removal is not None and self._removal.done():
            removal, self._removal = self._removal, None
            self._settled = time.monotonic() + SETTLING_SECONDS
            try:
                removal.result()
            except TryLater as failure:
                self._ledger.report(failure)
        if folders and self._removal is None and time.monotonic() >= self._settled:
            self._removal = in_a_thread("removal", self._kept.remove, folders, why)

    async def _remove(self, folders: Sequence[KeptFolder], why: str) -> bool:
        try:
            return await in_time("kept folders", partial(self._kept.remove, folders, why))
        except TryLater as failure:
            self._ledger.report(failure)
        except TimeoutError:
            log.error("kept folders are not removed yet: a conversion directory does not respond")
        return False
