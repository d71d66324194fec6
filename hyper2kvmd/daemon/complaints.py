"""Errors of single files in the spool: logged once each, without an effect on other files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from hyper2kvmd.daemon.names import kept

log = logging.getLogger(__name__)
"""Its messages are limited, because a submitter can cause them again and again: journal.LIMITED."""

MAX_COMPLAINTS = 1000
"""Logged errors that are remembered, so that they are not repeated."""


class Complaints:
    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    @contextmanager
    def about(self, name: str) -> Iterator[None]:
        """Log an error of this file, unless it was the last one of that file."""
        try:
            yield
        except OSError as error:
            if len(self._known) >= MAX_COMPLAINTS:
                self._known.clear()
            if self._known.get(name) != error.strerror:
                self._known[name] = str(error.strerror)
                log.error("spool: %s: %s; it will be retried", kept(name), error.strerror)
        else:
            self._known.pop(name, None)
