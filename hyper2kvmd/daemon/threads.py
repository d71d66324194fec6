"""Blocking work in threads that do not delay the end of the process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

HANG_SECONDS = 20.0
"""A file system that responds is quicker, and systemd's watchdog waits longer."""


def in_a_thread(name: str, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """The result of `work`, or what it raises.

    A thread that hangs is left behind: neither other work nor the end of the process waits for it. The threads of
    `asyncio.to_thread` are few, and the process waits for them.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work(*args, **kwargs)
        except Exception as error:
            _call_in_loop(loop, done, partial(done.set_exception, error))
        else:
            _call_in_loop(loop, done, partial(done.set_result, result))

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


def _call_in_loop(loop: asyncio.AbstractEventLoop, done: asyncio.Future[T], finish: Callable[[], None]) -> None:
    def call() -> None:
        if not done.done():  # it may be cancelled
            finish()

    with suppress(RuntimeError):  # the daemon has ended meanwhile
        loop.call_soon_threadsafe(call)


class Looks:
    """Looks at file systems, of which one may belong to a server that does not respond."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[asyncio.Future[Any], float]] = {}
        """For each purpose, and when it has to be done (monotonic)."""

    async def in_time(self, purpose: str, look: Callable[[], T], *, shared: bool = False) -> T:
        """What `look` finds. While an earlier look hangs, no other one is begun: each would hold a thread.

        `shared`: what a look finds that began a moment ago will do. Raises TimeoutError, and what `look` raises.
        """
        now = time.monotonic()
        looking, until = self._last.get(purpose, (None, now))
        if looking is None or looking.done():
            looking, until = in_a_thread(purpose, look), now + HANG_SECONDS
            self._last[purpose] = looking, until
        elif not shared:
            raise TimeoutError
        done, _ = await asyncio.wait([looking], timeout=max(0.0, until - now))
        if not done:
            raise TimeoutError
        found: T = looking.result()
        return found
