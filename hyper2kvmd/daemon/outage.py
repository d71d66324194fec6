"""Logs a lasting error when it begins, every ten minutes, and when it is over."""

from __future__ import annotations

import logging
import time

from hyper2kvmd.errors import Failure
from hyper2kvmd.units import duration

log = logging.getLogger(__name__)

REPEAT_SECONDS = 600.0
QUIET_SECONDS = 10.0
"""Without an error for so long, it is over: on a read-only file system, reading succeeds meanwhile."""
MAX_TEXTS = 20
"""Different errors of one outage that are logged as soon as they occur."""


class Outage:
    def __init__(self, what: str) -> None:
        self._what = what
        self._texts: set[str] = set()
        self._fact = ""
        self._begun = self._logged = self._last = 0.0

    @property
    def fact(self) -> str:
        """The last error, while it lasts; else empty."""
        return self._fact if time.monotonic() - self._last < QUIET_SECONDS else ""

    def failed(self, failure: Failure) -> None:
        now, text = time.monotonic(), str(failure)
        if not self._texts:
            self._begun = now
        self._fact = text
        is_new = text not in self._texts and len(self._texts) < MAX_TEXTS
        if is_new:
            self._texts.add(text)
            log.error("%s", text)
        elif now - self._logged >= REPEAT_SECONDS:
            log.error("for %s: %s", duration(now - self._begun), text)
        else:
            self._last = now
            return
        self._logged = self._last = now

    def succeeded(self) -> None:
        if self._texts and time.monotonic() - self._last >= QUIET_SECONDS:
            self._texts.clear()
            log.info("%s responds again, after %s", self._what, duration(self._last - self._begun))
