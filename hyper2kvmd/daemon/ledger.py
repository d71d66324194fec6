"""The store for the event loop: it runs in a thread of its own, so that a slow disk never stalls the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from hyper2kvmd.daemon.outage import Outage
from hyper2kvmd.errors import TryLater
from hyper2kvmd.jobs.store import Store

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_SECONDS = 2.0


class Ledger:
    def __init__(self, store: Store) -> None:
        self.store = store
        self._outage = Outage("the job database")
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def call(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call one of the store's verbs; raises its errors."""
        result = await asyncio.get_running_loop().run_in_executor(self._thread, partial(verb, *args, **kwargs))
        self._outage.succeeded()
        return result

    async def ensure(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same, repeated while the database does not respond: a worker's results must go on record."""
        while True:
            try:
                return await self.call(verb, *args, **kwargs)
            except TryLater as failure:
                self.report(failure)
                await asyncio.sleep(PATIENCE_SECONDS)

    def report(self, failure: TryLater) -> None:
        """Log that the database does not respond, unless that is known."""
        self._outage.failed(failure)

    @property
    def fault(self) -> str:
        """Why the database could not be used just now; empty if it could."""
        return self._outage.fact

    def close(self) -> None:
        self._thread.shutdown(wait=True)
        self.store.close()
