"""The mark on working folders that no job on record knows: since when that is so.

The database may have been restored or replaced, so such a folder is removed a day after it was first seen, not at once.
The mark is an extended attribute, which needs no space on a full file system. Where these are not supported, it is an
empty file in the folder.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

ATTRIBUTE = "user.hyper2kvm.unknown-since"
FILE = ".unknown-since"
QUARANTINE_SECONDS = 86_400.0
AHEAD_SECONDS = 300.0
"""A mark that is further in the future is of a wrong clock."""


def unknown_since(folder: int) -> float | None:
    """When the open folder was first seen without a job; None if it has no mark."""
    since = _of_attribute(folder)
    if since is None:
        since = _of_file(folder)
    return None if since is None or since > time.time() + AHEAD_SECONDS else since


def mark(folder: int) -> None:
    """Begin the quarantine of the open folder. Raises OSError if its file system has no place for a mark."""
    try:
        os.setxattr(folder, ATTRIBUTE, f"{time.time():.0f}".encode())
    except OSError:
        before = os.fstat(folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(FILE, flags, 0o600, dir_fd=folder)
        try:
            os.utime(handle)
        finally:
            os.close(handle)
        os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def clear(folder: int) -> None:
    """A job knows the open folder."""
    with suppress(OSError):
        os.removexattr(folder, ATTRIBUTE)
    with suppress(OSError):
        os.unlink(FILE, dir_fd=folder)


def _of_attribute(folder: int) -> float | None:
    with suppress(OSError, ValueError):
        return float(os.getxattr(folder, ATTRIBUTE))
    return None


def _of_file(folder: int) -> float | None:
    with suppress(OSError):
        return os.stat(FILE, dir_fd=folder, follow_symlinks=False).st_mtime
    return None
