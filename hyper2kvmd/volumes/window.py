"""The bytes of a volume, and nothing else of the disks, for a file system that is not mounted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.volumes.mapping import Stretches, cut


class WritableDisk(Protocol):
    """A whole disk; `flush` returns when all writes are on it."""

    def read(self, offset: int, length: int) -> bytes: ...

    def write(self, offset: int, data: bytes) -> None: ...

    def flush(self) -> None: ...


@dataclass(frozen=True)
class FileDisk:
    """A disk by an open descriptor, which the caller closes. Raises MigrationFailed (`image-write-failed`)."""

    handle: int

    @property
    def size(self) -> int:
        """Bytes. Raises OSError."""
        return os.fstat(self.handle).st_size

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
    """A volume's bytes, counted from its start. A mirrored byte is read once and written to each leg.

    `disks` are the machine's disks in order. With `read_only`, writes are refused.
    """

    disks: Sequence[WritableDisk]
    stretches: Stretches
    read_only: bool

    @staticmethod
    def reaches(stretches: Stretches) -> bool:
        """Whether all of them can be read and written here."""
        return bool(stretches) and all(
            stretch.kind in ("linear", "mirror") and stretch.crypt is None for stretch in stretches
        )

    @property
    def size(self) -> int:
        return sum(stretch.length for stretch in self.stretches)

    def read(self, offset: int, length: int) -> bytes:
        self._require_inside(offset, length)
        if not length:
            return b""
        found = (stretch.legs[0] for stretch in cut(self.stretches, offset, length))
        return b"".join(self.disks[leg.disk].read(leg.offset, leg.length) for leg in found)

    def write(self, offset: int, data: bytes) -> None:
        self._require_inside(offset, len(data))
        if self.read_only:
            raise MigrationFailed(
                "volume-read-only",
                "a volume was opened read-only",
                hint="Report this bug: an inspection tried to write",
            )
        done = 0
        for stretch in cut(self.stretches, offset, len(data)) if data else ():
            for leg in stretch.legs:
                self.disks[leg.disk].write(leg.offset, data[done : done + leg.length])
            done += stretch.length

    def flush(self) -> None:
        for disk in self.disks:
            disk.flush()

    def _require_inside(self, offset: int, length: int) -> None:
        if offset < 0 or offset + length > self.size:
            raise MigrationFailed(
                "guest-damaged",
                f"a file system of {self.size} bytes refers to data beyond its end, at {offset}",
                hint="Check it in the guest (fsck), shut the guest down cleanly, then export it again",
            )


def _unwritten(error: OSError) -> MigrationFailed:
    return MigrationFailed(
        "image-write-failed",
        f"the image cannot be written: {error.strerror}",
        hint="Check space and storage of the conversion directory, then retry",
        kind=Kind.RETRY,
    )
