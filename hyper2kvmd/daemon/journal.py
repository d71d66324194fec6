"""The daemon's log: to the journal with its fields where stderr is the journal, else lines on stderr.

A message is one printable line, whatever a guest, a tool or a file name put into it. What concerns one job goes
through a `JobLog`: it begins with the job's number, which is the field JOB_ID in the journal.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import MutableMapping
from typing import Any

from logging_journald import JournaldLogHandler, JournaldTransport, check_journal_stream


def set_up(level: str) -> None:
    """Begin to log, once; `level` may be set again later."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if not root.handlers:
        root.addHandler(_handler())


def _handler() -> logging.Handler:
    if check_journal_stream():
        with contextlib.suppress(OSError):  # its socket is not in reach, then its stream is
            return _Journal()
    return _lines()


class JobLog(logging.LoggerAdapter[logging.Logger]):
    """What `log` is told of one job."""

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
        line = " / ".join(record.message.splitlines())
        record.message = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)
        return super().formatMessage(record)
