"""The pieces of an extent: where each range of the disk is stored, and whether it is stored at all."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple, Protocol


class PieceKind(Enum):
    RAW = "raw"
    """Bytes stored unchanged at `offset` of `file`."""
    PACKED = "packed"
    """All or a part of the one compressed grain whose record begins at `offset` of `file`."""
    ZERO = "zero"
    """Known to be zeros, whatever a parent contains."""


class ExtentPiece(NamedTuple):
    """Guest bytes `guest` to `guest + length`, counted from the start of the disk; `file` is a file descriptor."""

    guest: int
    length: int
    file: int
    offset: int
    kind: PieceKind


class Extent(Protocol):
    """Guest bytes `start` to `stop` of one disk. Bytes that no piece covers come from the parent, or are zeros."""

    @property
    def start(self) -> int: ...

    @property
    def stop(self) -> int: ...

    @property
    def stored(self) -> int:
        """The number of stored guest bytes, from its checked tables."""
        ...

    def pieces(self, lo: int, hi: int) -> Iterator[ExtentPiece]:
        """The stored pieces of the guest bytes from `lo` to `hi`, in order, without overlap, cut at `lo` and `hi`."""
        ...
