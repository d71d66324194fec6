"""What an extent tells of itself: where each stretch of the disk is stored, and whether it is stored at all."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple, Protocol


class PieceKind(Enum):
    RAW = "raw"
    """Bytes as they are at `offset` of `file`."""
    PACKED = "packed"
    """All or a part of the one compressed grain whose record begins at `offset` of `file`."""
    ZERO = "zero"
    """Known to be zeros, whatever a parent holds."""


class ExtentPiece(NamedTuple):
    """Guest bytes `guest` to `guest + length`, counted from the start of the disk; `file` is a file descriptor."""

    guest: int
    length: int
    file: int
    offset: int
    kind: PieceKind


class Extent(Protocol):
    """Guest bytes `start` to `stop` of one disk. What no piece covers is left to the parent, or zeros."""

    @property
    def start(self) -> int: ...

    @property
    def stop(self) -> int: ...

    @property
    def stored(self) -> int:
        """How many of the guest bytes are stored, as its checked tables say."""
        ...

    def pieces(self, lo: int, hi: int) -> Iterator[ExtentPiece]:
        """What is stored of the guest bytes from `lo` to `hi`, in order, without overlap, cut at `lo` and `hi`."""
        ...
