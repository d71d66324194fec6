"""A raw image that a copy writes: file and guest offsets are equal, unwritten space is a hole."""

from __future__ import annotations

import os
from pathlib import Path


class RawWriter:
    """A raw image of `virtual_size` bytes at `path`, which is created if missing.

    It has its full size from the start, so its size does not show whether it is complete.
    """

    unit = 65536
    window = 512 << 20
    compress = False

    def __init__(self, path: Path, virtual_size: int) -> None:
        self.path, self.virtual_size = path, virtual_size
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    @property
    def options(self) -> str:
        """Settings that determine the file's bytes, besides the source."""
        return f"raw {self.virtual_size}"

    @property
    def full_size(self) -> int:
        """Bytes to reserve for a guest that writes all of its disk."""
        return self.virtual_size

    def begin(self) -> None:
        """Start anew; discard the file's content."""
        os.ftruncate(self.fd, 0)
        os.ftruncate(self.fd, self.virtual_size)

    def resume(self, state: bytes) -> None:
        """Continue: later data is written again with the same bytes. Raises ValueError for another file's state."""
        if state or os.fstat(self.fd).st_size != self.virtual_size:
            raise ValueError("not a state of this image")
        os.fdatasync(self.fd)

    def state(self) -> bytes:
        return b""

    def place(self, guest: int, length: int) -> int:  # noqa: ARG002 - every length fits at its own place
        return guest

    def place_packed(self, guest: int, size: int) -> int:
        raise ValueError(f"raw images are never compressed ({size} bytes at {guest})")

    def pack(self, cluster: bytes) -> bytes | None:  # noqa: ARG002
        return None

    def take_tables(self) -> list[tuple[int, bytes]]:
        return []

    def finish(self) -> int:
        os.fsync(self.fd)
        return 0

    def close(self) -> None:
        os.close(self.fd)
