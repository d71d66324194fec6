"""Calls of the kernel and C library for the copy engine that Python lacks."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
FALLOC_FL_KEEP_SIZE = 1
SYNC_FILE_RANGE_WRITE = 2
FICLONERANGE = 0x4020940D
CLONE_RANGE = struct.Struct("qQQQ")
UNSHARABLE = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ETXTBSY, errno.EBADF}
"""Errors of blocks that cannot be shared, not of a failing device."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory(block: int, total: int) -> None:
    """Let the allocator keep freed memory for reuse: up to `total` bytes in blocks of up to `block`.

    By default glibc returns the pages at once and requests them anew: half the system time of a copy. With another
    C library, nothing happens. Source: mallopt(3).
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(M_MMAP_THRESHOLD, block)
        _libc.mallopt(M_TRIM_THRESHOLD, total)


def reserve(fd: int, length: int) -> None:
    """Allocate the file's first `length` bytes, also beyond its end, without changing its length.

    Raises OSError: ENOSPC, or EOPNOTSUPP if the file system cannot.
    """
    _checked(_libc.fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, length))


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Start to write dirty pages of the range, without waiting or a guarantee."""
    _libc.sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WRITE)


def clone_range(source: int, offset: int, length: int, sink: int, at: int) -> None:
    """Share the blocks of a range of `source` with `target`; all bounds are multiples of the block size."""
    fcntl.ioctl(sink, FICLONERANGE, CLONE_RANGE.pack(source, offset, length, at))


def can_clone(source: int, folder: Path) -> bool:
    """Whether files in `folder` can share blocks with the open file `source`; tested with a nameless file."""
    try:
        probe = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        clone_range(source, 0, os.fstatvfs(probe).f_frsize, probe, 0)
    except OSError:
        return False
    finally:
        os.close(probe)
    return True


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
