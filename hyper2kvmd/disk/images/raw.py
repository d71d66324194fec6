"""A raw image as the target of a copy: every byte at its own place, holes where nothing is written."""

from __future__ import annotations

import os
from pathlib import Path


class RawTarget:
    """A raw image of `virtual_size` bytes at `path`, which is created if missing.

    It has its full size from the start, so only the end of the copy tells a complete one.
    """

    unit = 65536
    window = 512 << 20
    compress = False

    def __init__(self, path: Path, virtual_size: int) -> None:
        self.path, self.virtual_size = path, virtual_size
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    @property
    def options(self) -> str:
        """What, besides the source, decides the bytes of the file."""
        return f"raw {self.virtual_size}"

    @property
    def full_size(self) -> int:
        """Bytes to reserve for a guest that writes all of its disk."""
        return self.virtual_size

    def begin(self) -> None:
        """Start afresh, whatever the file holds."""
        os.ftruncate(self.fd, 0)
        os.ftruncate(self.fd, self.virtual_size)

    def resume(self, state: bytes) -> None:
        """Go on: what lies beyond is written again with the same bytes. Raises ValueError for another file's state."""
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
