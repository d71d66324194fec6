"""Learns from inotify which files are renamed into `incoming/`, so that they need not wait for the next scan.

Only a rename shows that a file is complete: a writer may open and close a file several times. An event is a hint:
there is none for remote writers on NFS, and some may be lost.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from hyper2kvmd.daemon.threads import in_a_thread

# inotify(7), <sys/inotify.h>
IN_MOVED_TO = 0x80
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000
IN_MOVE_SELF = 0x800
EVENT = struct.Struct("iIII")
"""Watch, mask, cookie and the length of the name that follows."""
BUFFER_BYTES = 64 << 10
MAX_NAMES = 10_000
"""Names that wait for a scan, which finds the others by itself."""

_libc = ctypes.CDLL(None, use_errno=True)


class Arrivals:
    """The renames into one folder, for the running event loop.

    The standard library has no inotify. These two calls need no package, whose way through ctypes would be the same.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[bytes, None] = {}
        self._some = asyncio.Event()
        self._handle = -1
        self._follow(self._watched())

    def close(self) -> None:
        if self._handle >= 0:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1

    async def wait(self, seconds: float) -> list[str]:
        """The names that arrived, as soon as there are any; none after this time."""
        if self._handle < 0:  # in a thread: the folder may be on a server that does not respond
            self._follow(await in_a_thread("inotify", self._watched))
        try:
            async with asyncio.timeout(seconds):
                await self._some.wait()
        except TimeoutError:
            return []
        return self.taken()

    def taken(self) -> list[str]:
        """The names that arrived since the last call."""
        names, self._names = [os.fsdecode(name) for name in self._names], {}
        self._some.clear()
        return names

    def _watched(self) -> int:
        """A new watch; -1 without inotify: scans then find the files a second later."""
        handle = int(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        if handle < 0:
            return -1
        if _libc.inotify_add_watch(handle, os.fsencode(self._folder), IN_MOVED_TO | IN_MOVE_SELF | IN_ONLYDIR) < 0:
            os.close(handle)
            return -1
        return handle

    def _follow(self, handle: int) -> None:
        self._handle = handle
        if handle >= 0:
            asyncio.get_running_loop().add_reader(handle, self._read)

    def _read(self) -> None:
        try:
            events = os.read(self._handle, BUFFER_BYTES)
        except BlockingIOError:
            return
        for mask, name in _parsed(events):
            if mask & (IN_IGNORED | IN_MOVE_SELF):  # the folder was removed or renamed: watch the next one
                self.close()
                return
            if mask & IN_MOVED_TO and len(self._names) < MAX_NAMES:
                self._names[name] = None
        if self._names:
            self._some.set()


def _parsed(events: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(events):
        _, mask, _, length = EVENT.unpack_from(events, at)
        at += EVENT.size
        yield mask, events[at : at + length].rstrip(b"\0")
        at += length
