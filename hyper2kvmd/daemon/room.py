"""The space of jobs: who gets it, who waits for it, and which kept folders are removed for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.kept import Kept, KeptFolder, sufficient
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.space import Demand, Shortage, Space
from hyper2kvmd.daemon.storage import in_time
from hyper2kvmd.daemon.threads import Looks
from hyper2kvmd.daemon.wire import FileSystemRole, FileSystemUse
from hyper2kvmd.errors import TryLater
from hyper2kvmd.model.jobs import Job
from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import AwaitingSpace

log = logging.getLogger(__name__)


class Room:
    def __init__(self, config: DaemonConfig, ledger: Ledger) -> None:
        self._ledger = ledger
        self._space = Space(config.space_reserve)
        self._kept = Kept(ledger.store)
        self._waiting: dict[int, Demand] = {}
        self._looks = Looks()
        self._denied: dict[int, tuple[Demand, str]] = {}
        self.configure(config)

    def configure(self, config: DaemonConfig) -> None:
        self._config = config
        self._space.reserve = config.space_reserve

    async def admit(self, job: Job, order: Order, event: AwaitingSpace) -> bool:
        """Whether the job gets the space it asks for; kept folders are removed for it."""
        seen = event.publish_file_system
        output = order.output_dir if seen is None or order.output_dir == self._config.output_dir else seen
        demand = Demand(order.working_folder, event.needed_bytes, output, event.publish_bytes)
        shortage = await self._space.admit(job.id, demand)
        while shortage is not None and await self._make(shortage, f"job {job.id} needed the space"):
            shortage = await self._space.admit(job.id, demand)
        if shortage is not None:
            self._denied[job.id] = demand, shortage.note
            return False
        store = self._ledger.store
        return await self._ledger.ensure(store.reserve, job.id, job.attempt, event.needed_bytes + event.publish_bytes)

    def release(self, job_id: int) -> None:
        """Nothing is promised to the job any more."""
        self._space.release(job_id)

    def take_denial(self, job_id: int) -> tuple[Demand, str] | None:
        """What the job asked for in vain, and what was missing; None if nothing was refused."""
        return self._denied.pop(job_id, None)

    def wait(self, job_id: int, demand: Demand) -> None:
        """The job is in the queue until `demand` can be met."""
        self._waiting[job_id] = demand

    def forget(self, job_id: int) -> None:
        """The job does not wait any longer."""
        self._waiting.pop(job_id, None)

    async def wake_waiting(self) -> None:
        """Let jobs be claimed that wait for space and fit now, possibly in place of kept folders."""
        kept: Sequence[KeptFolder] | None = None
        for job_id, demand in list(self._waiting.items()):
            shortage = await self._space.shortage(demand)
            if shortage is not None:
                if shortage.device is None:
                    continue
                if kept is None:
                    kept = await self._kept_folders()
                others = [folder for folder in kept if folder.job_id != job_id]
                if not sufficient(others, shortage):
                    continue
                kept = ()  # they count for one job at a time
            del self._waiting[job_id]
            await self._ledger.call(self._ledger.store.wake, [job_id])

    async def restore_reserve(self, folder: Path) -> None:
        """Remove kept folders, even if too few, when the file system of one that was just kept is too full."""
        shortage = await self._space.shortage(Demand(folder, 0, self._config.output_dir, 0))
        if shortage is not None:
            await self._make(shortage, "the file system was full up to space_reserve", all_needed=False)

    async def file_systems(self, directories: Mapping[FileSystemRole, Path]) -> tuple[FileSystemUse, ...]:
        return await self._space.file_systems(directories)

    async def _kept_folders(self) -> tuple[KeptFolder, ...]:
        """Empty while a conversion directory does not respond."""
        directories, waiting = self._config.conversion_dirs, frozenset(self._waiting)
        try:
            return await self._looks.in_time(
                "kept folders", lambda: self._kept.folders(directories, waiting), shared=True
            )
        except TimeoutError:
            return ()

    async def _make(self, shortage: Shortage, why: str, *, all_needed: bool = True) -> bool:
        """Remove kept folders, if they are `sufficient`; return whether any was removed."""
        if shortage.device is None:
            return False
        try:
            chosen = sufficient(await self._kept_folders(), shortage, all_needed=all_needed)
            return await in_time("kept folders", partial(self._kept.remove, chosen, why))
        except TryLater as failure:
            log.error("%s", failure)
        except TimeoutError:
            log.error("kept folders are not removed yet: a conversion directory does not respond")
        return False
