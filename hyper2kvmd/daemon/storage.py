"""Whether the daemon can write to its directories.

Each one is tried by a small write, so that a full, read-only or failing file system is known by name before a job meets
it. A fault ends by itself: the next write that succeeds clears it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar, get_args

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.locks import Locks
from hyper2kvmd.daemon.opening import directory_of, hold
from hyper2kvmd.daemon.threads import in_a_thread
from hyper2kvmd.daemon.wire import FileSystemFault, FileSystemRole
from hyper2kvmd.errors import Failure, TryLater
from hyper2kvmd.host.space import reason_of, write_a_little

log = logging.getLogger(__name__)

T = TypeVar("T")
HEALTHY_SECONDS = 5.0
FAULTY_SECONDS = 2.0
"""Time between two looks, without and with a fault."""
HANG_SECONDS = 30.0
"""A write that takes longer is a fault: a dead server does not respond, and no error says so."""
JOBS_NEED: Mapping[FileSystemRole, str] = {"conversion": "conversion_dir", "output": "output_dir"}
"""The directories that a migration can replace by another one."""


async def in_time(name: str, work: Callable[[], T]) -> T:
    """The result of work with the directories. Raises TimeoutError if one of them hangs, and what `work` raises."""
    return await asyncio.wait_for(in_a_thread(name, work), HANG_SECONDS)


class Storage:
    def __init__(self, config: DaemonConfig, locks: Locks) -> None:
        self._config, self._locks = config, locks
        self._faults: dict[FileSystemRole, FileSystemFault] = {}
        self._looking: dict[FileSystemRole, asyncio.Future[str]] = {}

    @property
    def faults(self) -> tuple[FileSystemFault, ...]:
        return tuple(self._faults.values())

    @property
    def conversion_is_full(self) -> bool:
        full = os.strerror(errno.ENOSPC)
        return any((fault.role, fault.reason) == ("conversion", full) for fault in self._faults.values())

    def configure(self, config: DaemonConfig) -> None:
        self._config = config

    async def follow(self, changed: Callable[[], object]) -> None:
        """Look again and again; `changed` is called when a fault has begun or ended."""
        while True:
            if await self.look():
                changed()
            await asyncio.sleep(FAULTY_SECONDS if self._faults else HEALTHY_SECONDS)

    async def look(self) -> bool:
        """Whether anything has changed."""
        before = self.faults
        await asyncio.gather(*(self._look_at(role) for role in get_args(FileSystemRole)))
        return before != self.faults

    def usable(self) -> Callable[[str], bool] | None:
        """Whether the directories of a job, given its migration as JSON, can be written to. None: all can."""
        default = {
            key: str(directory_of(role, self._config)) for role, key in JOBS_NEED.items() if role in self._faults
        }
        if "state" in self._faults:
            return lambda _migration: False
        if not default:
            return None

        def answer(migration: str) -> bool:
            try:
                asked = json.loads(migration)
                return not any(asked.get(key) in (None, path) for key, path in default.items())
            except (ValueError, TypeError, AttributeError):  # a damaged record: the job fails when it is claimed
                return True

        return answer

    async def _look_at(self, role: FileSystemRole) -> None:
        looking = self._looking.pop(role, None) or in_a_thread(
            f"write-{role}", partial(fault_of, role, self._config, self._locks)
        )
        done, _ = await asyncio.wait([looking], timeout=HANG_SECONDS)
        if done:
            reason = looking.result()
        else:
            self._looking[role], reason = looking, "it does not respond"
        self._note(role, directory_of(role, self._config), reason)

    def _note(self, role: FileSystemRole, path: Path, reason: str) -> None:
        known = self._faults.get(role)
        if not reason:
            if self._faults.pop(role, None) is not None:
                log.info("%s_dir %s can be written to again", role, path)
        elif known is None or (known.reason, known.path) != (reason, path):
            since = known.since if known else datetime.now(UTC)
            self._faults[role] = FileSystemFault(role=role, path=path, reason=reason, since=since)
            log.error("%s", unwritable(role, path, reason))


def unwritable(role: FileSystemRole, path: Path, reason: str) -> TryLater:
    """The fault as an error."""
    return TryLater(
        "storage-unwritable",
        f"{role}_dir {path} cannot be written to: {reason}",
        hint="Free space there, or repair or mount its file system: the daemon then continues by itself",
    )


def fault_of(role: FileSystemRole, config: DaemonConfig, locks: Locks) -> str:
    """Why the directory cannot be written to; empty if it can, or if a job will say better what is wrong with it."""
    directory = directory_of(role, config)
    try:
        write_a_little(hold(role, config, locks))
    except Failure as failure:
        if failure.code == "already-running":
            return failure.message.removeprefix(f"{role}_dir {directory}: ")
        return reason_of(failure.__cause__, directory) if isinstance(failure.__cause__, OSError) else ""
    except OSError as error:
        return reason_of(error, directory)
    return ""
