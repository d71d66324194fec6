"""Blocking work in threads that do not delay the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

T = TypeVar("T")


def in_a_thread(name: str, work: Callable[[], T]) -> asyncio.Future[T]:
    """The result of `work`, or what it raises. A thread that hangs is left behind."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work()
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
