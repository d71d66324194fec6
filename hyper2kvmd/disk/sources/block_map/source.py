"""A disk with a block table as a source of the copy engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from hyper2kvmd.disk import ranges
from hyper2kvmd.disk.blocks import RUN_LIMIT, Run
from hyper2kvmd.disk.engine import copy
from hyper2kvmd.disk.files import SourceFile, source_changed
from hyper2kvmd.disk.images.image import NewImage, image_bytes
from hyper2kvmd.disk.ranges import Ranges
from hyper2kvmd.disk.reader import SourceReader
from hyper2kvmd.disk.sources.block_map.table import StoredPiece
from hyper2kvmd.disk.sources.block_map.vdi import read_vdi
from hyper2kvmd.disk.sources.block_map.vhd import read_vhd
from hyper2kvmd.disk.sources.block_map.vhdx import read_vhdx
from hyper2kvmd.disk.sources.sampling import content_bytes, upper_bound
from hyper2kvmd.disk.sources.source import FileBacked, OnProgress, QemuNode, copy_by_engine
from hyper2kvmd.errors import MigrationFailed

BlockMapFormat = Literal["vdi", "vhd", "vhdx"]
PARTIAL_LIMIT = 2 << 20
"""Bytes of a run with sectors that were never written, which is in memory as a whole; a divisor of RUN_LIMIT."""


class BlockMap(Protocol):
    """A disk as described by its headers."""

    @property
    def file(self) -> SourceFile: ...

    @property
    def subformat(self) -> str: ...

    @property
    def virtual_size(self) -> int: ...

    @property
    def qemu_node(self) -> QemuNode | None:
        """How QEMU reads the same disk; None if it cannot."""
        ...

    def pieces(self, lo: int, hi: int) -> Iterator[StoredPiece]:
        """All that is stored of [lo, hi), and perhaps more of its blocks, in guest order.

        Every piece was found to be in the file, and their blocks together are no longer than it.
        Raises MigrationFailed (`source-corrupt`, `source-truncated`).
        """
        ...

    def written(self, guest: int, offset: int, data: bytes) -> bytes:
        """`data` of a partial piece or a part of one, at `guest` and `offset`, with zeros for what was never written.

        Raises MigrationFailed (`source-truncated`).
        """
        ...


class BlockMapSource(FileBacked):
    """A `DiskSource` on an open file. `load` may be called from several threads."""

    def __init__(self, disk: BlockMap, fmt: BlockMapFormat) -> None:
        self.format: BlockMapFormat = fmt
        self.subformat, self.virtual_size = disk.subformat, disk.virtual_size
        self.files = (disk.file,)
        self._disk, self._file = disk, disk.file

    @property
    def qemu_node(self) -> QemuNode | None:
        return self._disk.qemu_node

    @cached_property
    def data_bytes(self) -> int:
        """Estimated number of guest bytes in units with data; runs cover more. Raises as `runs` and `load` do."""
        reader = SourceReader(self)
        return content_bytes(self._stored, lambda start, stop: reader.read(start, stop - start))

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        """The runs that begin in [start, stop), in guest order. Raises as `BlockMap.pieces` does."""
        lo = start // RUN_LIMIT * RUN_LIMIT
        hi = min(-(-stop // RUN_LIMIT) * RUN_LIMIT, self.virtual_size)
        for piece in _cut(_joined(_clipped(self._disk.pieces(lo, hi), lo, hi))):
            for run in self._without_holes(piece):
                if run.guest >= stop:
                    return
                if run.guest >= start:
                    yield run

    def copy_into(self, image: NewImage, limits: copy.CopyLimits, on_progress: OnProgress) -> None:
        """Raises as `copy.copy` does, and MigrationFailed (`source-changed`) if the amount of data has grown."""
        stored = self._stored.length
        most = image_bytes(self.virtual_size, upper_bound(image.data_bytes, stored), image.format)

        def on_read(now: copy.Amounts) -> None:
            if now.written > most and not image.reserve:
                raise source_changed(self._file.path)
            done = now.read * image.data_bytes // stored if stored else 0
            on_progress(copy.Amounts(done, now.written, image.data_bytes))

        try:
            copy_by_engine(self, image, limits, on_read, counted=_Stored(self, self.virtual_size, stored))
        except MigrationFailed:
            self.require_unchanged()  # then a changed table is the reason
            raise

    def load(self, run: Run) -> bytes:
        """Raises MigrationFailed (`source-truncated`, `disk-read-failed`)."""
        at = run.offset - self._file.first
        data = self._file.read_whole(at, run.length)
        return self._disk.written(run.guest, at, data) if run.packed else data

    @cached_property
    def _stored(self) -> Ranges:
        """What all runs cover. Raises as `runs` does."""
        stored = Ranges()
        for run in self.runs(0, self.virtual_size):
            stored.add(run.guest, run.guest + run.length)
        return stored

    def _without_holes(self, piece: StoredPiece) -> Iterator[Run]:
        """Whole units of the disk, as far as the piece has them: smaller holes save nothing."""
        if piece.partial:
            at = self._file.first + piece.offset
            yield Run(piece.guest, piece.length, self._file.fd, at, packed=True, sharable=False)
            return
        shift, end = piece.guest - piece.offset, piece.guest + piece.length
        data = self._file.data_ranges(piece.offset, piece.offset + piece.length)
        for start, stop in ranges.in_units(((start + shift, stop + shift) for start, stop in data), end):
            begin = max(start, piece.guest)
            yield Run(begin, stop - begin, self._file.fd, self._file.first + begin - shift, sharable=False)


@dataclass(frozen=True)
class _Stored:
    """The source for the engine, which counts what the runs cover and not what an image will keep."""

    source: BlockMapSource
    virtual_size: int
    data_bytes: int

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        return self.source.runs(start, stop)

    def load(self, run: Run) -> bytes:
        return self.source.load(run)


def _clipped(pieces: Iterator[StoredPiece], lo: int, hi: int) -> Iterator[StoredPiece]:
    for piece in pieces:
        begin, end = max(piece.guest, lo), min(piece.guest + piece.length, hi)
        if begin < end:
            yield _part(piece, begin, end)


def _part(piece: StoredPiece, begin: int, end: int) -> StoredPiece:
    return piece._replace(guest=begin, length=end - begin, offset=piece.offset + begin - piece.guest)


def _joined(pieces: Iterator[StoredPiece]) -> Iterator[StoredPiece]:
    """Pieces joined where they are contiguous both in the disk and in the file: never those of blocks with bitmaps."""
    held: StoredPiece | None = None
    for piece in pieces:
        if held is not None and piece.guest == held.guest + held.length and piece.offset == held.offset + held.length:
            held = held._replace(length=held.length + piece.length)
            continue
        if held is not None:
            yield held
        held = piece
    if held is not None:
        yield held


def _cut(pieces: Iterator[StoredPiece]) -> Iterator[StoredPiece]:
    for piece in pieces:
        limit = PARTIAL_LIMIT if piece.partial else RUN_LIMIT
        for start, stop in ranges.cut([(piece.guest, piece.guest + piece.length)], limit):
            yield _part(piece, start, stop)


READERS: Mapping[BlockMapFormat, Callable[[SourceFile], BlockMap]] = {
    "vdi": read_vdi,
    "vhd": read_vhd,
    "vhdx": read_vhdx,
}


def open_block_map(file: SourceFile, fmt: BlockMapFormat) -> BlockMapSource:
    """The disk of format `fmt` in the open `file`, vetted. Raises as `read_vdi`, `read_vhd` and `read_vhdx` do."""
    return BlockMapSource(READERS[fmt](file), fmt)
