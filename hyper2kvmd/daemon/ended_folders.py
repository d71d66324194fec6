"""Keeps or removes the working folders of jobs that have ended, with a time limit for a directory that hangs."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from pathlib import Path

from hyper2kvmd.daemon import storage
from hyper2kvmd.daemon.journal import JobLog
from hyper2kvmd.daemon.kept import keep_or_remove
from hyper2kvmd.daemon.threads import in_a_thread

log = logging.getLogger(__name__)


class EndedFolders:
    def __init__(self) -> None:
        self._hanging: dict[Path, asyncio.Future[bool]] = {}
        """The work that did not end in time, by conversion directory."""

    async def keep_or_remove(self, named: Path, allowed: tuple[Path, ...], name: str, *, wanted: bool) -> bool:
        """As the function of that name in a thread, with a time limit.

        A folder in a directory that hangs stays. It counts as kept if it is `wanted`: an attempt examines what it finds
        there. While one thread hangs in a directory, no other one is begun.
        """
        hanging = self._hanging.get(named)
        if hanging is None or hanging.done():
            work = in_a_thread("folder", partial(keep_or_remove, named, allowed, name, wanted=wanted))
            done, _ = await asyncio.wait([work], timeout=storage.HANG_SECONDS)
            if done:
                return work.result()
            self._hanging[named] = work
        said = "its working folder may stay until `h2kvmctl gc` removes it: %s does not respond"
        JobLog(log, name.rpartition(".")[2]).warning(said, named)
        return wanted
