"""Writes past the page cache: an image is too large to keep there, and copying into it costs a core."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

from hyper2kvmd.disk.blocks import Buffer

ALIGNMENT = 4096
"""Bytes. A multiple of every device's logical block: open(2) requires it of offset, length and memory."""
CAPACITY = 4 << 20
"""Bytes gathered for one write."""


def possible(path: Path) -> bool:
    """Whether the file system can read and write this file past the page cache."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class DirectFile:
    """The file at `path`, for one thread. If it cannot be opened this way, nothing is written."""

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            self._fd = -1
        self._memory = memoryview(mmap.mmap(-1, CAPACITY))

    def write(self, offset: int, size: int, buffers: list[Buffer]) -> bool:
        """Write all `size` bytes of `buffers` at `offset`; False if that is only possible through the page cache.

        After False, any part may have been written. Raises OSError.
        """
        if self._fd < 0 or offset % ALIGNMENT or size % ALIGNMENT:
            return False
        try:
            held = 0
            for buffer in buffers:
                rest = memoryview(buffer)
                while rest:
                    part = rest[: CAPACITY - held]
                    self._memory[held : held + len(part)] = part
                    held, rest = held + len(part), rest[len(part) :]
                    if held == CAPACITY:
                        offset, held = self._flush(offset, held), 0
            self._flush(offset, held)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.close()
            return False
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _flush(self, offset: int, held: int) -> int:
        """Write the first `held` gathered bytes; returns their end."""
        done = 0
        while done < held:
            count = os.pwrite(self._fd, self._memory[done:held], offset + done)
            if count % ALIGNMENT:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            done += count
        return offset + held
