"""Reads the published report of a job from the path on record. The directory may belong to its submitter."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from hyper2kvmd.daemon.threads import in_a_thread
from hyper2kvmd.errors import InvalidInput, TryLater
from hyper2kvmd.host.placed import submitter_of
from hyper2kvmd.model.jobs import Job

MAX_REPORT = 16 << 20
"""Bytes."""
READ_SECONDS = 10.0
MAX_READERS = 4
"""Directories that may hang at the same time, such as those on an unavailable server. Later reports are refused."""
FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class ReportFiles:
    def __init__(self) -> None:
        self._readers = 0

    async def read(self, job: Job, path: Path) -> bytes:
        """Raises InvalidInput (`report-unreadable`) or TryLater (`report-late`)."""
        if self._readers >= MAX_READERS:
            raise _late(path)
        self._readers += 1
        reading = in_a_thread("report", lambda: read_report(path, job))
        reading.add_done_callback(self._count_down)
        try:
            return await asyncio.wait_for(asyncio.shield(reading), READ_SECONDS)
        except TimeoutError as error:
            raise _late(path) from error
        except OSError as error:
            raise InvalidInput(
                "report-unreadable",
                f"the report {path} of job {job.id} cannot be read: {error.strerror or error}",
                hint="Read it where it was moved to, if it was moved",
            ) from error

    def _count_down(self, reading: asyncio.Future[bytes]) -> None:
        self._readers -= 1
        if not reading.cancelled():
            reading.exception()


def read_report(path: Path, job: Job) -> bytes:
    """The file at this path, if the daemon wrote it for the submitter of the job. Raises OSError."""
    handle = _opened(path)
    with open(handle, "rb") as file:  # noqa: PTH123 - it is open already
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
            raise OSError("it is no file of the daemon")
        if submitter_of(handle) not in (None, job.submitter_uid):
            raise OSError("it is the report of another submitter's machine")
        if facts.st_size > MAX_REPORT:
            raise OSError(f"it has more than {MAX_REPORT >> 20} MiB")
        return file.read(MAX_REPORT)


def _opened(path: Path) -> int:
    """No part of the path may be a link: the path on record has none."""
    folder = os.open("/", FOLDER)
    try:
        for name in path.parts[1:-1]:
            below = os.open(name, FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.open(path.name, FILE, dir_fd=folder)
    finally:
        os.close(folder)


def _late(path: Path) -> TryLater:
    return TryLater(
        "report-late",
        f"the file system of the report {path} does not respond",
        hint="Try again when the directory can be listed",
    )
