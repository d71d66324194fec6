"""Clears what killed processes have left behind: when the daemon starts, and after jobs that ended in `publish`.

Nothing here depends on ages. A leftover is recognised by its name, mark or mount, and by a lock that nobody holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.journal import JobLog
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.storage import in_time
from hyper2kvmd.daemon.threads import in_a_thread
from hyper2kvmd.errors import Failure, TryLater
from hyper2kvmd.guest.mounts import rootside
from hyper2kvmd.host.conversion_dir import ConversionDir, open_conversion_dir
from hyper2kvmd.host.leftovers import tidy_directory
from hyper2kvmd.host.tidying import tidied
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import Job, State
from hyper2kvmd.model.orders import Order

log = logging.getLogger(__name__)

PERIOD_SECONDS = 5.0
MAX_DIRECTORIES = 20
"""Of jobs that ended before the daemon's start: each costs a process."""
Leftover = Literal["draft", "folder", "mount"]


class Cleared(NamedTuple):
    kind: Leftover
    path: Path


def leftovers(config: DaemonConfig, store: Store, faulty: Collection[Path] = ()) -> Iterator[Cleared]:
    """Clear the configured directories, except `faulty` ones; each path when it is cleared.

    Raises the store's errors. A directory that cannot be used is passed over: a job in it says why.
    """
    for path in tidy_directory(config.output_dir, os.geteuid()) if config.output_dir not in faulty else ():
        yield Cleared("draft", path)
    for conversion_dir in config.conversion_dirs:
        if conversion_dir in faulty:
            continue
        with contextlib.suppress(OSError), _opened(conversion_dir) as directory:
            if directory is not None:
                yield from _in(directory, store)


@contextlib.contextmanager
def _opened(conversion_dir: Path) -> Iterator[ConversionDir | None]:
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(open_conversion_dir(conversion_dir, os.geteuid()))
        except Failure:
            directory = None
        yield directory


def _in(directory: ConversionDir, store: Store) -> Iterator[Cleared]:
    """Stale mounts in folders that no process holds, and folders of jobs that have succeeded."""
    unused = directory.unused()
    owners = store.folder_owners(one.job_id for one in unused if one.job_id is not None)
    for folder in unused:
        for path in directory.detach_stale_mounts(folder.name):
            yield Cleared("mount", path)
        owner = None if folder.job_id is None else owners.get(folder.job_id)
        if owner is None or folder.job_id is None or not owner.owns(folder.name, folder.job_id):
            continue
        if owner.state is State.SUCCEEDED:
            with contextlib.suppress(Failure):
                if directory.discard(folder.name, lambda: True):
                    yield Cleared("folder", directory.path / folder.name)


def ended_order(config: DaemonConfig, job: Job) -> Order:
    """What is needed to open the output directory of a job that has ended."""
    assert job.migration is not None  # noqa: S101 - only rejected jobs have none
    return Order(
        job_id=str(job.id),
        migration=job.migration,
        submitter=job.submitter,
        submitter_uid=job.submitter_uid,
        conversion_dir=config.conversion_dir,
        output_dir=job.migration.output_dir or config.output_dir,
        helper=config.helper,
        bounds=config.bounds,
    )


def one_for_each_directory(ended: Iterable[Job]) -> Sequence[Job]:
    """The newest of these jobs for each directory that a submitter has named: its drafts are marked as theirs."""
    found: dict[tuple[Path, int], Job] = {}
    for job in ended:
        if job.migration is not None and job.migration.output_dir is not None:
            found.setdefault((job.migration.output_dir, job.submitter_uid), job)
    return tuple(found.values())


class Clearing:
    def __init__(self, config: DaemonConfig, ledger: Ledger, metrics: Metrics) -> None:
        self.config = config
        self._ledger, self._metrics = ledger, metrics
        self._looked_until: datetime | None = None

    async def at_start(self, faulty: Collection[Path]) -> None:
        """Clear all directories but the `faulty` ones. What this does not reach in time is left to `h2kvmctl gc`."""
        store = self._ledger.store
        try:
            cleared = await in_time("clear", lambda: tuple(leftovers(self.config, store, faulty)))
        except (TimeoutError, TryLater) as failure:
            why = failure if isinstance(failure, TryLater) else "a directory does not respond"
            log.warning("leftovers of killed jobs may remain: %s", why)
            return
        for one in cleared:
            self._report(one)

    async def follow(self) -> None:
        """Tidy the output directory of each job that ended in `publish`, also of those before the daemon's start."""
        await self._sweep_devices()
        while True:
            with contextlib.suppress(TryLater):
                ended = await self._ledger.call(self._ledger.store.killed_in_publish, self._looked_until)
                for job in ended if self._looked_until else one_for_each_directory(ended)[:MAX_DIRECTORIES]:
                    await self._tidy(job)
                if ended or self._looked_until is None:
                    self._looked_until = ended[0].finished if ended else datetime.fromtimestamp(0, UTC)
            await asyncio.sleep(PERIOD_SECONDS)

    async def _sweep_devices(self) -> None:
        """Have NBD devices and mappings of killed helpers removed: a helper does so whenever it is asked something."""
        with contextlib.suppress(Failure, OSError):  # without repairs, a host needs no helper
            await in_a_thread("helper", rootside.probe, rootside.Helper(self.config.helper), "start", ())

    async def _tidy(self, job: Job) -> None:
        order = ended_order(self.config, job)
        try:
            for name in await in_a_thread("drafts", tidied, order):
                self._report(Cleared("draft", order.output_dir / name))
        except Failure as failure:
            JobLog(log, job.id).warning("drafts may be left in %s: %s", order.output_dir, failure.message)

    def _report(self, one: Cleared) -> None:
        log.info("cleaned up %s, which a killed job had left", one.path)
        self._metrics.cleared(one.kind)
