"""Answers that requests share, so that their number does not change how often the database is queried."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Generic, TypeVar

T = TypeVar("T")

ANSWER_SECONDS = 10.0
SHARE_SECONDS = 1.0
PAGES_KEPT = 64
"""Different pages whose answers are shared."""
MAX_QUEUED = 16
"""Pages that may wait to be made. A client that asks for another one is refused."""


class Overloaded(Exception):
    """Too many different pages are wanted at once."""


class Shared(Generic[T]):
    """One answer for all requests within SHARE_SECONDS, and for those that arrive while it is being made."""

    def __init__(self, make: Callable[[], Coroutine[None, None, T]]) -> None:
        self._make = make
        self._begun = 0.0
        self._task: asyncio.Task[T] | None = None

    @property
    def pending(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def stale(self) -> bool:
        """Whether the next request has it made."""
        return self._task is None or (self._task.done() and time.monotonic() - self._begun >= SHARE_SECONDS)

    async def get(self) -> T:
        """Raises the errors of `make`, and TimeoutError after ANSWER_SECONDS."""
        if self._task is None or self.stale:
            self._begun = time.monotonic()
            self._task = asyncio.create_task(self._make())
            self._task.add_done_callback(_mark_retrieved)
        return await asyncio.wait_for(asyncio.shield(self._task), ANSWER_SECONDS)


def _mark_retrieved(task: asyncio.Task[object]) -> None:
    """Keep a failure out of the log that no client waited for."""
    if not task.cancelled():
        task.exception()


class SharedPages:
    """The same for pages that differ by their address.

    Pages are made one at a time, and after each one the database rests for as long as the page took. So a client that
    asks for ever new addresses takes at most half of the database's time.
    """

    def __init__(self) -> None:
        self._pages: OrderedDict[str, Shared[str]] = OrderedDict()
        self._turn = asyncio.Lock()
        self._rested = 0.0

    def __len__(self) -> int:
        return len(self._pages)

    async def get(self, address: str, make: Callable[[], Coroutine[None, None, str]]) -> str:
        """Raises the errors of `make`, TimeoutError, and Overloaded."""
        page = self._pages.setdefault(address, Shared(lambda: self.in_turn(make)))
        self._pages.move_to_end(address)
        self._forget_oldest()
        if page.stale and sum(one.pending for one in self._pages.values()) >= MAX_QUEUED:
            raise Overloaded
        return await page.get()

    def _forget_oldest(self) -> None:
        for address in [address for address, page in self._pages.items() if not page.pending]:
            if len(self._pages) <= PAGES_KEPT:
                return
            del self._pages[address]

    async def in_turn(self, make: Callable[[], Coroutine[None, None, T]]) -> T:
        """For what is not shared. Raises the errors of `make`."""
        async with self._turn:
            await asyncio.sleep(self._rested - time.monotonic())
            began = time.monotonic()
            try:
                return await make()
            finally:
                ended = time.monotonic()
                self._rested = ended + (ended - began)
