"""A lock on a file that is held as long as the file is open: it ends with its process, unlike a pidfile."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

MODE = 0o600
MAX_HOLDER = 4096
"""Bytes of the description of a holder."""
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


class Held(Exception):
    """Another process holds the lock; the text describes it."""


class FileLock:
    """The lock on the file `path`, which is made if missing and stays when the lock ends.

    Only this user can open it: whoever can, even for reading, can hold the lock. The file is open for reading only: a
    file that is open for writing would keep its file system from being made read-only.
    """

    def __init__(self, path: Path, holder: str) -> None:
        """Raises Held, OSError; PermissionError as well for a file that belongs to another user than this one or root.

        A file system without locks counts as free.
        """
        self.path = path
        self._handle = _opened(path)
        try:
            if os.fstat(self._handle).st_uid not in (0, os.geteuid()):
                raise PermissionError(errno.EACCES, "it belongs to another user", str(path))
            keep_private(self._handle)
            _lock(self._handle)
            with suppress(OSError):  # a full file system: the lock counts, not its text
                _describe(self._handle, holder)
        except BaseException:
            os.close(self._handle)
            raise

    @property
    def valid(self) -> bool:
        """False when the file was removed or replaced, or its file system is another one now. Raises OSError."""
        try:
            return os.path.samestat(os.fstat(self._handle), self.path.lstat())
        except FileNotFoundError:
            return False

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        facts = os.fstat(self._handle)
        return facts.st_dev, facts.st_ino

    def close(self) -> None:
        os.close(self._handle)


def keep_private(handle: int) -> None:
    """Earlier versions let the group read their lock files."""
    if stat.S_IMODE(os.fstat(handle).st_mode) != MODE:
        with suppress(OSError):  # a read-only file system
            os.fchmod(handle, MODE)


def _opened(path: Path) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with suppress(FileNotFoundError):  # an existing file can be locked on a read-only file system as well
        return os.open(path, flags)
    return os.open(path, flags | os.O_CREAT, MODE)


def _lock(handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Held(_text(handle)) from error
    except OSError as error:
        if error.errno == errno.EBADF:  # NFS locks only what is open for writing
            writable = os.open(f"/proc/self/fd/{handle}", os.O_RDWR | os.O_CLOEXEC)
            os.dup2(writable, handle, inheritable=False)
            os.close(writable)
            _lock(handle)
        elif error.errno not in WITHOUT_LOCKS:
            raise


def _describe(handle: int, holder: str) -> None:
    writable = os.open(f"/proc/self/fd/{handle}", os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(writable, holder.encode(errors="surrogateescape"))
    finally:
        os.close(writable)


def _text(handle: int) -> str:
    return os.pread(handle, MAX_HOLDER, 0).decode(errors="replace").strip() or "an unknown process"
