"""One byte range of a disk, and nothing else of it: for a file system that is worked on without a mount."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.model import Segment


class WritableDisk(Protocol):
    """A whole disk; `flush` returns when what was written is on it."""

    def read(self, offset: int, length: int) -> bytes: ...

    def write(self, offset: int, data: bytes) -> None: ...

    def flush(self) -> None: ...


@dataclass(frozen=True)
class FileDisk:
    """A disk by an open descriptor, which stays its owner's. Raises MigrationFailed (`disk-write-failed`)."""

    handle: int

    def read(self, offset: int, length: int) -> bytes:
        pieces = []
        while length and (piece := os.pread(self.handle, length, offset)):
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(pieces) + bytes(length)

    def write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self.handle, view, offset)
                offset, view = offset + written, view[written:]
        except OSError as error:
            raise _unwritten(error) from error

    def flush(self) -> None:
        try:
            os.fdatasync(self.handle)
        except OSError as error:
            raise _unwritten(error) from error


@dataclass(frozen=True)
class Window:
    """`segment` of a disk; offsets count from its start. With `read_only` a write is refused."""

    disk: WritableDisk
    segment: Segment
    read_only: bool

    @property
    def size(self) -> int:
        return self.segment.length

    def read(self, offset: int, length: int) -> bytes:
        self._require_inside(offset, length)
        return self.disk.read(self.segment.offset + offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._require_inside(offset, len(data))
        if self.read_only:
            raise MigrationFailed(
                "disk-write-failed", "a volume was opened for reading only", hint="report this: a dry run has written"
            )
        self.disk.write(self.segment.offset + offset, data)

    def flush(self) -> None:
        self.disk.flush()

    def _require_inside(self, offset: int, length: int) -> None:
        if offset < 0 or offset + length > self.size:
            raise MigrationFailed(
                "guest-damaged",
                f"a file system of {self.size} bytes names a place beyond its end, at {offset}",
                hint="check it in the guest (fsck), shut the guest down cleanly, export it again",
            )


def _unwritten(error: OSError) -> MigrationFailed:
    return MigrationFailed(
        "disk-write-failed",
        f"the image cannot be written: {error.strerror}",
        hint="check space and storage of the conversion directory, then retry",
        kind=Kind.RETRY,
    )
