"""Space promised to running jobs, per file system, so that no job fails half way for lack of space.

A promise shrinks as its job writes, because the space that the working folder occupies is no longer free.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hyper2kvmd.daemon.threads import Looks
from hyper2kvmd.daemon.wire import FileSystemRole, FileSystemUse
from hyper2kvmd.host.space import files_in, kept, occupied
from hyper2kvmd.model.orders import FileSystem
from hyper2kvmd.units import size

NEEDED_INODES = 16
"""For the files of a working folder, or of the results of a job."""
LEAST_GROWTH = 1 << 20


@dataclass(frozen=True)
class Demand:
    """Bytes that one job is about to write."""

    folder: Path
    """The working folder; its files will occupy `conversion` bytes in all."""
    conversion: int
    output: Path | FileSystem
    """The configured output directory, or the file system of another one as the worker found it. The daemon does not
    access another one: its submitter can move it, close it or make it hang."""
    publish: int


@dataclass(frozen=True)
class Shortage:
    """Bytes that a demand lacks on one file system; `device` is None if the removal of folders would not help."""

    note: str
    device: int | None = None
    missing: int = 0
    full: bool = False
    """Next to nothing is free now, whatever is promised or kept. False if the daemon cannot look again."""


def file_system_of(path: Path) -> FileSystem:
    """The file system that `path` is on, or would be on once it is created. Raises OSError."""
    while not path.exists():
        path = path.parent
    facts = os.statvfs(path)
    return FileSystem(
        device=path.stat().st_dev,
        free=facts.f_bavail * facts.f_frsize,
        size=facts.f_blocks * facts.f_frsize,
        inodes=facts.f_favail if facts.f_files else None,
    )


def freed_by_removal(folder: Path) -> int:
    """Bytes on disk of its files that have no other name: a published image is a hard link."""
    return sum(facts.st_blocks * 512 for facts in files_in(folder) if facts.st_nlink == 1)


class Space:
    def __init__(self, reserve: str) -> None:
        self.reserve = reserve
        self._promised: dict[int, Demand] = {}
        self._turn = asyncio.Lock()
        self._looks = Looks()

    async def admit(self, job_id: int, demand: Demand) -> Shortage | None:
        """Promise the space instead of an earlier promise to this job, or return the shortage."""
        async with self._turn:
            others = {one: promise for one, promise in self._promised.items() if one != job_id}
            shortage = await self._lack(demand, others)
            if shortage is None:
                self._promised[job_id] = demand
            return shortage

    async def shortage(self, demand: Demand) -> Shortage | None:
        """The shortage that `admit` would return to a job without a promise."""
        async with self._turn:
            return await self._lack(demand, dict(self._promised))

    async def after_full(self, demand: Demand) -> Demand:
        """The demand of a job whose write found no space: a quarter more than it has written, if that is not free.

        Its demand was too small then, or another program took the space.
        """
        async with self._turn:
            with contextlib.suppress(TimeoutError, OSError):
                return await self._looks.in_time("full", lambda: self._after_full(demand))
        return demand

    def _after_full(self, demand: Demand) -> Demand:
        found, written = file_system_of(demand.folder), occupied(demand.folder)
        more = max(LEAST_GROWTH, written // 4)
        if found.free >= more:
            return demand
        most = found.size - kept(self.reserve, found.size)
        return replace(demand, conversion=max(demand.conversion, min(written + more, most)))

    def release(self, job_id: int) -> None:
        """End the promise to a job that is over."""
        self._promised.pop(job_id, None)

    async def file_systems(self, directories: Mapping[FileSystemRole, Path]) -> tuple[FileSystemUse, ...]:
        """Those of these directories, without the ones that cannot be examined; none if one does not respond."""
        promised = dict(self._promised)
        try:
            return await self._looks.in_time("uses", lambda: self._uses(directories, promised), shared=True)
        except TimeoutError:
            return ()

    def _uses(
        self, directories: Mapping[FileSystemRole, Path], promised: dict[int, Demand]
    ) -> tuple[FileSystemUse, ...]:
        taken, uses = self._outstanding(promised), dict[int, FileSystemUse]()
        for role, path in directories.items():
            with contextlib.suppress(OSError):
                found = file_system_of(path)
                earlier = uses.get(found.device)
                uses[found.device] = FileSystemUse(
                    roles=(*(earlier.roles if earlier else ()), role),
                    path=earlier.path if earlier else path,
                    size=found.size,
                    free=found.free,
                    reserve=kept(self.reserve, found.size),
                    promised=taken.get(found.device, 0),
                )
        return tuple(uses.values())

    async def _lack(self, demand: Demand, promised: dict[int, Demand]) -> Shortage | None:
        try:
            return await self._looks.in_time("demand", lambda: self._missing(demand, promised))
        except TimeoutError:
            return Shortage("waiting for space: a file system does not respond")
        except OSError as error:
            return Shortage(f"waiting for space: {error.filename} cannot be examined: {error.strerror}")

    def _missing(self, demand: Demand, promised: dict[int, Demand]) -> Shortage | None:
        taken = self._outstanding(promised)
        wanted: dict[int, int] = {}
        for where_to, length in _parts(demand):
            found = _file_system(where_to)
            where = where_to if isinstance(where_to, Path) else "the output directory"
            if found.inodes is not None and found.inodes < NEEDED_INODES:
                return Shortage(f"waiting for inodes on the file system of {where}: it has {found.inodes} left")
            wanted[found.device] = wanted.get(found.device, 0) + length
            free = found.free - kept(self.reserve, found.size) - taken.get(found.device, 0)
            if wanted[found.device] > free:
                note = (
                    f"waiting for space on the file system of {where}: {size(wanted[found.device])} needed, "
                    f"{size(max(0, free))} available (after the reserve and the running jobs)"
                )
                full = isinstance(where_to, Path) and found.free < LEAST_GROWTH
                return Shortage(note, found.device, wanted[found.device] - free, full)
        return None

    def _outstanding(self, promised: dict[int, Demand]) -> dict[int, int]:
        taken: dict[int, int] = {}
        for demand in promised.values():
            with contextlib.suppress(OSError):  # a promise that cannot be examined is no reason to refuse others
                for where_to, length in _parts(demand):
                    device = _file_system(where_to).device
                    taken[device] = taken.get(device, 0) + length
        return taken


def _file_system(where_to: Path | FileSystem) -> FileSystem:
    return file_system_of(where_to) if isinstance(where_to, Path) else where_to


def _parts(demand: Demand) -> tuple[tuple[Path | FileSystem, int], ...]:
    """The directories or file systems to which a job still has to write, with the bytes."""
    conversion = (demand.folder, max(0, demand.conversion - occupied(demand.folder)))
    return (conversion, (demand.output, demand.publish)) if demand.publish else (conversion,)
