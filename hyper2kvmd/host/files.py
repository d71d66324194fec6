"""Files of this host: their data ranges, copies within the kernel, and durable atomic writes."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

CHUNK = 4 << 20
"""Bytes that are read or copied at once."""
OUT_OF_REACH = (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""Errors if copy_file_range(2) does not support two files, not of a failing device."""


def data_ranges(file: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Ranges with data in [start, stop) of an open file; the rest is holes or reserved space, so zeros.

    Raises OSError.
    """
    while start < stop:
        try:
            begin = os.lseek(file, start, os.SEEK_DATA)
            end = os.lseek(file, begin, os.SEEK_HOLE) if begin < stop else stop
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole up to the end
                return
            raise
        if begin >= stop:
            return
        start = min(stop, end)
        yield begin, start


def copy_range(source: int, sink: int, at: int, length: int) -> int:
    """Bytes copied from `at` in one open file to `at` in the other; 0 at the end of `source`. Raises OSError.

    The two share blocks if their file system supports it. The position of `sink` changes.
    """
    try:
        return os.copy_file_range(source, sink, length, at, at)
    except OSError as error:
        if error.errno not in OUT_OF_REACH:
            raise
    os.lseek(sink, at, os.SEEK_SET)
    return os.sendfile(sink, source, at, length)


def sha256_of(handle: int, on_progress: Callable[[int], None] = lambda _done: None) -> str:
    """The digest of all bytes of an open file; its holes are not read. Raises OSError."""
    digest, zeros, done, size = hashlib.sha256(), bytes(CHUNK), 0, os.fstat(handle).st_size
    for start, stop in (*data_ranges(handle, 0, size), (size, size)):
        while done < start:
            digest.update(memoryview(zeros)[: start - done])
            done = min(start, done + CHUNK)
            on_progress(done)
        while done < stop:
            chunk = os.pread(handle, min(CHUNK, stop - done), done)
            if not chunk:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            digest.update(chunk)
            done += len(chunk)
            on_progress(done)
    return digest.hexdigest()


def write_durably(path: Path, text: str, *, prepare: Callable[[int], None] = lambda _handle: None) -> None:
    """Replace `path` with `text`; after a power cut it has all of it or its previous content. Raises OSError.

    `prepare` may set the rights of the open file before anything is written to it.
    """
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", encoding="utf-8") as file:
        prepare(file.fileno())
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return when the names in `folder` are on the disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
