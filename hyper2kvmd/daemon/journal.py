"""The daemon's log: journal entries with fields if stderr is the journal, else lines on stderr.

A message is one printable line, whatever a guest, a tool or a file name put into it. Messages about a job go through
`JobLog`, and the number of messages that strangers can cause is limited.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from abc import abstractmethod
from collections.abc import MutableMapping
from typing import Any

from logging_journald import JournaldLogHandler, JournaldTransport, check_journal_stream

from hyper2kvmd.daemon.http import HttpProcessingError

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
STDERR = 2
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
    return _Lines()


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


class _Losing(logging.Handler):
    """Counts the messages that cannot be written, as on a full file system, and says their number afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._lost:
                self._write(_lost(self._lost))
                self._lost = 0
            self._write(record)
        except OSError:
            self._lost += 1
        except Exception:
            self.handleError(record)

    @abstractmethod
    def _write(self, record: logging.LogRecord) -> None:
        """Raises OSError."""


def _lost(number: int) -> logging.LogRecord:
    text = "messages that could not be written to the log: %d"
    return logging.LogRecord(log.name, logging.WARNING, __file__, 0, text, (number,), None)


class _Journal(_Losing):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_OneLine("%(message)s"))
        self._transport = JournaldTransport()

    def _write(self, record: logging.LogRecord) -> None:
        fields = [
            ("MESSAGE", self.format(record)),
            ("PRIORITY", JournaldLogHandler.LEVELS[record.levelno]),
            ("SYSLOG_IDENTIFIER", "hyper2kvmd"),
            ("JOB_ID", getattr(record, "job_id", None)),
        ]
        self._transport.send(fields)


class _Lines(_Losing):
    """Written without a buffer, which would keep what a full file system refuses, and fail again when Python ends."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
        self._cut = False
        """The last line lacks its end."""

    def _write(self, record: logging.LogRecord) -> None:
        begin = b"\n" if self._cut else b""
        left = begin + f"{self.format(record)}\n".encode(errors="backslashreplace")
        while left:
            left = left[os.write(STDERR, left) :]
            self._cut = bool(left)


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        record.message = _printable(" / ".join(record.message.splitlines()))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the library's name
        """Indented, so that nothing in it can pass for a message."""
        return "\n".join(f"    {_printable(line)}" for line in super().formatException(ei).splitlines())


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)
