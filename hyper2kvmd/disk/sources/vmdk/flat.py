"""Extents without tables: flat files, and extents of zeros without a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hyper2kvmd.disk import faults
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.sources.vmdk.pieces import ExtentPiece, PieceKind


@dataclass(frozen=True)
class FlatExtent:
    """Guest bytes `start` to `stop` are at `offset` of `file`; its holes are zeros and cost nothing."""

    file: SourceFile
    start: int
    stop: int
    offset: int

    def pieces(self, lo: int, hi: int) -> Iterator[ExtentPiece]:
        shift = self.offset - self.start
        for begin, end in self.file.data_ranges(max(lo, self.start) + shift, min(hi, self.stop) + shift):
            yield ExtentPiece(begin - shift, end - begin, self.file.fd, begin, PieceKind.RAW)

    @property
    def stored(self) -> int:
        return sum(piece.length for piece in self.pieces(self.start, self.stop))


def open_flat(file: SourceFile, start: int, stop: int, offset: int) -> FlatExtent:
    """Raises MigrationFailed (`source-truncated`) if `file` ends before the extent."""
    needed = offset + stop - start
    if file.size < needed:
        raise faults.truncated(file.path, f"it ends at byte {file.size} of {needed}")
    return FlatExtent(file, start, stop, offset)


@dataclass(frozen=True)
class ZeroExtent:
    start: int
    stop: int
    stored: int = 0

    def pieces(self, lo: int, hi: int) -> Iterator[ExtentPiece]:
        lo, hi = max(lo, self.start), min(hi, self.stop)
        if lo < hi:
            yield ExtentPiece(lo, hi - lo, -1, 0, PieceKind.ZERO)
