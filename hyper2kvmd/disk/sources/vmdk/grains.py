"""The two levels of tables that map each grain of a sparse extent to its position in the file.

Tables are read on demand and never kept, so memory does not grow with the disk. Each entry is checked against the
file's real size and against the file's own metadata.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hyper2kvmd.disk import faults
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.sources.vmdk.descriptor import SECTOR
from hyper2kvmd.disk.sources.vmdk.pieces import ExtentPiece, PieceKind
from hyper2kvmd.errors import MigrationFailed

CHUNK = 65536
"""Bytes of a directory that are read at once."""
LARGEST_DIRECTORY = 64 << 20
"""Bytes. A disk of 62 TiB has a directory of 8 MiB, in SEsparse of 32 MiB; more has no use."""
BEST_RATIO = 1032
"""Most bytes from one byte of deflate (RFC 1951: 258 bytes for two bits)."""
ABSENT, ZEROED = 0, 1


@dataclass(frozen=True)
class GrainMap:
    """Guest bytes `start` to `stop` in grains of `grain` bytes; the directory is at byte `directory`.

    Entries are 32-bit sector numbers in the file. `reserved` are byte ranges of metadata that no grain may touch.
    """

    file: SourceFile
    start: int
    stop: int
    grain: int
    per_table: int
    directory: int
    reserved: tuple[range, ...]
    zero_entries: bool = False
    """An entry of 1 means a grain of zeros."""
    packed: bool = False
    whole: bool = False
    """The file is known to be complete: an entry that points behind it is no sign of truncation."""

    TYPECODE = "I"

    @property
    def entry_bytes(self) -> int:
        return array(self.TYPECODE).itemsize

    @property
    def table_bytes(self) -> int:
        return self.per_table * self.entry_bytes

    @property
    def directory_bytes(self) -> int:
        return -(-(self.stop - self.start) // (self.grain * self.per_table)) * self.entry_bytes

    def survey(self) -> int:
        """Check every table; returns the guest bytes that they map. Raises `source-corrupt`, `source-truncated`."""
        if self.directory_bytes > LARGEST_DIRECTORY:
            raise faults.corrupt(self.file.path, f"its grain directory has {self.directory_bytes} bytes")
        self._require_inside(self.directory, self.directory_bytes, "its grain directory lies")
        own = replace(self, reserved=(*self.reserved, range(self.directory, self.directory + self.directory_bytes)))
        mapped = stored = 0
        for piece in own.pieces(self.start, self.stop):
            if piece.kind is not PieceKind.ZERO:
                mapped += piece.length
                stored += max(SECTOR, piece.length // BEST_RATIO) if piece.kind is PieceKind.PACKED else piece.length
                if stored > self.file.size:
                    raise faults.corrupt(
                        self.file.path, f"its tables map more than the {self.file.size} bytes it has: grains overlap"
                    )
        return mapped

    def pieces(self, lo: int, hi: int) -> Iterator[ExtentPiece]:
        lo, hi = max(lo, self.start) - self.start, min(hi, self.stop) - self.start
        if lo >= hi:
            return
        span = self.grain * self.per_table
        for index, at in self._tables(lo // span, -(-hi // span)):
            data = self.file.read_whole(at, self.table_bytes)
            if data.count(0) == len(data):
                continue
            base = index * span
            first = max(0, lo - base) // self.grain
            last = min(self.per_table, -(-(hi - base) // self.grain))
            for position, grains, kind, offset in self._grains(self._decode(data, at), first, last):
                begin = base + position * self.grain
                end = begin + grains * self.grain
                if kind is not PieceKind.ZERO:
                    self._check(offset, min(end, self.stop - self.start) - begin, at + position * self.entry_bytes)
                cut = max(lo - begin, 0)
                yield ExtentPiece(
                    self.start + begin + cut,
                    min(end, hi) - begin - cut,
                    self.file.fd,
                    offset + cut if kind is PieceKind.RAW else offset,
                    kind,
                )

    def _grains(self, table: Sequence[int], position: int, last: int) -> Iterator[tuple[int, int, PieceKind, int]]:
        """Position, number, kind and file offset of contiguous grains."""
        step, packed = self.grain // SECTOR, self.packed
        while position < last:
            entry = table[position]
            end = position + 1
            if entry == ABSENT:
                position = end
                continue
            if entry == ZEROED and self.zero_entries:
                while end < last and table[end] == ZEROED:
                    end += 1
                yield position, end - position, PieceKind.ZERO, 0
            elif packed:
                yield position, 1, PieceKind.PACKED, entry * SECTOR
            else:
                expected = entry + step
                while end < last and table[end] == expected:
                    end += 1
                    expected += step
                yield position, end - position, PieceKind.RAW, entry * SECTOR
            position = end

    def _tables(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Number and byte offset of the existing tables from number `first` to `last`."""
        size, found = self.entry_bytes, 0
        while first < last:
            count = min(last - first, CHUNK // size)
            data = self.file.read_whole(self.directory + first * size, count * size)
            if data.count(0) < len(data):
                for index, entry in enumerate(self._entries(data), first):
                    if entry:
                        at = self._locate(entry, self.directory + index * size)
                        self._require_inside(at, self.table_bytes, f"grain table {index} lies")
                        found += 1
                        if found * self.table_bytes > self.file.size:
                            raise faults.corrupt(self.file.path, f"grain table {index} overlaps another one")
                        yield index, at
            first += count

    def _entries(self, data: bytes) -> array[int]:
        entries = array(self.TYPECODE)
        entries.frombytes(data)
        if sys.byteorder == "big":
            entries.byteswap()
        return entries

    def _locate(self, entry: int, at: int) -> int:  # noqa: ARG002
        """Byte offset of the grain table for the directory's `entry`, which was read at byte `at`."""
        return entry * SECTOR

    def _decode(self, data: bytes, at: int) -> Sequence[int]:  # noqa: ARG002
        """The sector of each grain in the table `data`, read at byte `at`."""
        return self._entries(data)

    def _check(self, offset: int, length: int, at: int) -> None:
        stored = SECTOR if self.packed else length
        for metadata in self.reserved:
            if offset < metadata.stop and metadata.start < offset + stored:
                raise faults.corrupt(
                    self.file.path, f"its table entry at byte {at} points to byte {offset}, inside its own metadata"
                )
        if offset + (1 if self.packed else stored) > self.file.size:
            raise self._beyond(f"its table entry at byte {at} needs bytes {offset} to {offset + stored}", offset)

    def _require_inside(self, offset: int, length: int, what: str) -> None:
        if offset < SECTOR:
            raise faults.corrupt(self.file.path, f"{what} at byte {offset}, inside the header")
        if offset + length > self.file.size:
            raise self._beyond(f"{what} at bytes {offset} to {offset + length}", offset)

    def _beyond(self, fact: str, offset: int) -> MigrationFailed:
        """A complete file of this disk is not larger than its metadata and all of its data."""
        fact = f"{fact}, but it ends at byte {self.file.size}"
        plausible = offset < self.file.size + (self.stop - self.start)
        if self.whole or not plausible:
            return faults.corrupt(self.file.path, fact)
        return faults.truncated(self.file.path, fact)
