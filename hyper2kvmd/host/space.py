"""Free space, less the reserve, checked before a byte is written."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hyper2kvmd import units
from hyper2kvmd.errors import Kind, MigrationFailed, TryLater
from hyper2kvmd.model.orders import FileSystem
from hyper2kvmd.model.sizes import BYTES

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a write without space for it."""
PROBE_BYTES = 1 << 20
FAULTS = (
    *FULL,
    *(errno.EFBIG, errno.EROFS, errno.EIO, errno.EUCLEAN, errno.EREMOTEIO, errno.ENOMEDIUM, errno.ENXIO, errno.ENODEV),
    *(errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ESHUTDOWN),
)
"""Errors that a file system gives whatever is written: it is full, read-only, damaged, or out of reach."""
TRIAL = ".hyper2kvmd.trial"
TRIAL_BYTES = 1 << 16
"""Enough for a transaction of SQLite and its journal, and for an outcome."""


def file_system_of_open(handle: int) -> FileSystem:
    """The file system of an open directory. Raises OSError."""
    facts = os.fstatvfs(handle)
    return FileSystem(
        device=os.fstat(handle).st_dev,
        free=facts.f_bavail * facts.f_frsize,
        size=facts.f_blocks * facts.f_frsize,
        inodes=facts.f_favail if facts.f_files else None,
    )


def kept(reserve: str, size: int) -> int:
    """Bytes of `space_reserve` (a size, or a percentage) on a file system of `size` bytes."""
    if reserve.endswith("%"):
        return int(float(reserve[:-1]) / 100 * size)
    whole = BYTES.read(reserve)
    return int(float(reserve)) if whole is None else whole


def available(path: Path, reserve: str) -> int:
    """Bytes that a user may still write below `path`, less the reserve."""
    status = os.statvfs(path)
    return max(0, status.f_bavail * status.f_frsize - kept(reserve, status.f_blocks * status.f_frsize))


def require_possible(path: Path, needed: int, handle: int | None = None) -> None:
    """Raise MigrationFailed (`space-never`) if even an empty file system is too small: waiting does not help.

    `handle` is the open directory `path`, or one above it that exists.
    """
    status = os.statvfs(path) if handle is None else os.fstatvfs(handle)
    size = status.f_blocks * status.f_frsize
    if needed > size:
        raise MigrationFailed(
            "space-never",
            f"{path} is on a file system of {units.size(size)}; the migration needs {units.size(needed)}",
            hint="Use a directory on a larger file system",
        )


def require(path: Path, needed: int, reserve: str) -> None:
    """Raise TryLater (`space-short`) if there is not enough now."""
    free = available(path, reserve)
    if needed > free:
        raise TryLater(
            "space-short",
            f"{path} has {units.size(free)} available (after the reserve of {reserve}); the migration "
            f"needs {units.size(needed)}",
            hint="Free space there, or use a directory on another file system",
        )


def occupied(folder: Path) -> int:
    """Bytes that the files of a folder occupy on disk; 0 if it does not exist."""
    return sum(facts.st_blocks * 512 for facts in files_in(folder))


def files_in(folder: Path) -> Iterator[os.stat_result]:
    for root, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                yield Path(root, name).lstat()


def require_growth(folder: Path, total: int, reserve: str) -> None:
    """Raise TryLater (`space-short`) if the files of a folder cannot occupy `total` bytes in all."""
    require(folder, max(0, total - occupied(folder)), reserve)


def is_full(folder: Path) -> bool:
    """Whether a real write below `folder` finds no space."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            os.posix_fallocate(probe.fileno(), 0, PROBE_BYTES)
    except OSError as error:
        return error.errno in FULL
    return False


def disk_full(folder: Path) -> MigrationFailed:
    """The error of a write that failed because of missing space, missing inodes or a quota."""
    return no_space(
        f"the file system that holds {folder} {'has no inodes left' if _lacks_inodes(folder) else 'is full'}"
    )


def no_space(fact: str) -> MigrationFailed:
    hint = "Free space there, or raise the quota. A job of the daemon then continues by itself"
    return MigrationFailed("disk-full", fact, hint=hint, kind=Kind.RETRY)


def _lacks_inodes(folder: Path) -> bool:
    with suppress(OSError):
        facts = os.statvfs(folder)
        return bool(facts.f_files and not facts.f_favail)
    return False


def write_a_little(directory: Path) -> None:
    """Make, fill, flush and remove a small file: a file system may refuse each of these. Raises OSError.

    Others may be able to write to the directory: whatever has the file's name is removed, not opened.
    """
    path = directory / TRIAL
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        left = bytes(TRIAL_BYTES)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)
        path.unlink()


def reason_of(error: OSError, directory: Path | None = None) -> str:
    """In words, if the file system is at fault; else empty."""
    if error.errno not in FAULTS:
        return ""
    if error.errno == errno.ENOSPC and directory is not None and _lacks_inodes(directory):
        return "No inodes left on device"
    return error.strerror or str(error)
