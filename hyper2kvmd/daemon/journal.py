"""The daemon's log: journal entries with fields if stderr is the journal, else lines on stderr.

A message is one printable line, whatever a guest, a tool or a file name put into it. Messages about a job go through
`JobLog`, and the number of messages that strangers can cause is limited.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import MutableMapping
from typing import Any

from aiohttp.http import HttpProcessingError
from logging_journald import JournaldLogHandler, JournaldTransport, check_journal_stream

log = logging.getLogger(__name__)

LIMITED = (
    "aiohttp.server",
    "asyncio",
    "hyper2kvmd.daemon.doors",
    "hyper2kvmd.daemon.ignored",
    "hyper2kvmd.daemon.incoming",
    "hyper2kvmd.daemon.complaints",
    "hyper2kvmd.daemon.spool.trouble",
)
"""Loggers whose messages strangers can cause."""
MAX_MESSAGES = 10
"""For each limited logger and PERIOD_SECONDS; bad requests are counted separately from errors of our own."""
PERIOD_SECONDS = 60.0


def set_up(level: str) -> None:
    """Start logging, once; later calls only set `level` again."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if not root.handlers:
        root.addHandler(_handler())
        for name in LIMITED:
            logging.getLogger(name).addFilter(Limit(name))


def report_omitted() -> None:
    """Log how many messages were left out in the periods that are over. Call it regularly."""
    for name in LIMITED:
        for limit in logging.getLogger(name).filters:
            if isinstance(limit, Limit):
                limit.report_omitted()


def _handler() -> logging.Handler:
    if check_journal_stream():
        with contextlib.suppress(OSError):  # its socket cannot be reached: use its stream
            return _Journal()
    return _lines()


class Limit(logging.Filter):
    """At most MAX_MESSAGES of one logger in a period. A bad request becomes one line without traceback."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._errors, self._bad_requests = _Budget(f"{name}: messages"), _Budget(f"{name}: bad requests")

    def filter(self, record: logging.LogRecord) -> bool:
        if not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)):
            return self._errors.spend()
        record.msg, record.args = f"{record.getMessage()}: {type(record.exc_info[1]).__name__}", ()
        record.exc_info = None
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
        return self._bad_requests.spend()

    def report_omitted(self) -> None:
        for budget in (self._errors, self._bad_requests):
            budget.report_omitted()


class _Budget:
    """How many messages may still be logged in this period. Safe to share between threads."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._lock = threading.Lock()
        self._begun, self._count = 0.0, 0

    def spend(self) -> bool:
        self.report_omitted()
        with self._lock:
            if self._count == 0:
                self._begun = time.monotonic()
            self._count += 1
            return self._count <= MAX_MESSAGES

    def report_omitted(self) -> None:
        """End the period when its time is over."""
        with self._lock:
            if self._count == 0 or time.monotonic() - self._begun < PERIOD_SECONDS:
                return
            omitted, self._count = self._count - MAX_MESSAGES, 0
        if omitted > 0:
            log.warning("%s left out of the log within %.0f s: %d", self._subject, PERIOD_SECONDS, omitted)


class JobLog(logging.LoggerAdapter[logging.Logger]):
    """Messages about one job. They begin with its number, which is the field JOB_ID in the journal."""

    def __init__(self, log: logging.Logger, job_id: int | str) -> None:
        super().__init__(log, {"job_id": job_id})
        self._prefix = f"job {job_id}: "

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return super().process(f"{self._prefix}{msg}", kwargs)


class _Journal(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_OneLine("%(message)s"))
        self._transport = JournaldTransport()

    def emit(self, record: logging.LogRecord) -> None:
        fields = [
            ("MESSAGE", self.format(record)),
            ("PRIORITY", JournaldLogHandler.LEVELS[record.levelno]),
            ("SYSLOG_IDENTIFIER", "hyper2kvmd"),
            ("JOB_ID", getattr(record, "job_id", None)),
        ]
        try:
            self._transport.send(fields)
        except OSError:
            self.handleError(record)


def _lines() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    return handler


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        record.message = _printable(" / ".join(record.message.splitlines()))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the library's name
        """Indented, so that nothing in it can pass for a message."""
        return "\n".join(f"    {_printable(line)}" for line in super().formatException(ei).splitlines())


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)
