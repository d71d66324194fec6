"""Log lines as the journal likes them: one line each on stderr, with the priority in front when it listens."""

from __future__ import annotations

import logging
import os
import sys

PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def set_up(level: str) -> None:
    """Send this program's log to stderr; `level` may be set again later."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Lines(journal=_stderr_is_journal()))
        root.addHandler(handler)


def _stderr_is_journal() -> bool:
    """JOURNAL_STREAM is inherited even by programs whose stderr was sent elsewhere: compare, see systemd.exec(5)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    facts = os.fstat(sys.stderr.fileno())
    return (device, inode) == (str(facts.st_dev), str(facts.st_ino))


class _Lines(logging.Formatter):
    def __init__(self, *, journal: bool) -> None:
        super().__init__("%(message)s" if journal else "%(asctime)s %(levelname)s %(message)s")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{PRIORITIES.get(record.levelno, 6)}>" if self._journal else ""
        return "\n".join(prefix + line for line in super().format(record).splitlines())

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """A message is one printable line, whatever a guest, a tool or a file name put into it."""
        line = " / ".join(record.message.splitlines())
        record.message = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)
        return super().formatMessage(record)
