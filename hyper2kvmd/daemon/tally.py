"""The bytes that one attempt's conversion moves, for the work of each hour on record."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.errors import TryLater

log = logging.getLogger(__name__)

RECORD_SECONDS = 30.0
"""Time between two writes to the database."""


class Tally:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._read = self._written = 0
        self._recorded = time.monotonic()

    async def add(self, read: int, written: int) -> None:
        self._read, self._written = self._read + max(0, read), self._written + max(0, written)
        if time.monotonic() - self._recorded >= RECORD_SECONDS:
            await self.record()

    async def record(self) -> None:
        """Write what was added. While the database does not respond, it is kept for the next time."""
        read, written = self._read, self._written
        self._recorded = time.monotonic()
        if not (read or written):
            return
        verb = self._ledger.store.record_work
        try:
            await self._ledger.call(verb, datetime.now(UTC), bytes_read=read, bytes_written=written)
        except TryLater as failure:
            self._ledger.report(failure)
        else:
            self._read, self._written = self._read - read, self._written - written
