"""Hosted sparse extents, magic KDMV: header versions 1 to 3, plain or compressed, with one or two sets of tables.

Source: VMware, Virtual Disk Format 5.0 (2011), sections "Hosted Sparse Extents" and "Stream-Optimized Compressed
Sparse Extents". Version 3 (VMware KB 2064959) adds change tracking, which a reader may ignore.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hyper2kvmd.disk import faults
from hyper2kvmd.disk.blocks import Buffer
from hyper2kvmd.disk.files import Forward, SourceFile
from hyper2kvmd.disk.sources.vmdk import stream
from hyper2kvmd.disk.sources.vmdk.descriptor import LIMIT, SECTOR, check_size
from hyper2kvmd.disk.sources.vmdk.grains import GrainMap
from hyper2kvmd.disk.sources.vmdk.pieces import ExtentPiece, PieceKind
from hyper2kvmd.errors import MigrationFailed

MAGIC = b"KDMV"
HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
LINE_ENDS = b"\n \r\n"
REDUNDANT, ZERO_GRAINS, COMPRESSED, MARKERS = 1 << 1, 1 << 2, 1 << 16, 1 << 17
DIRECTORY_AT_END = 0xFFFFFFFFFFFFFFFF
DEFLATE = 1
SMALLEST_GRAIN, LARGEST_GRAIN = 8, 16384
"""Sectors. Every VMware product writes 128."""
SMALLEST_TABLE, LARGEST_TABLE = 64, 65536
"""Entries. Every VMware product writes 512."""

ROUNDED = 64 << 10
"""Bytes: VirtualBox rounds the capacity in headers up to a multiple (src/VBox/Storage/VMDK.cpp)."""


@dataclass(frozen=True)
class Header:
    """Sizes and offsets in sectors, as in the file."""

    version: int
    flags: int
    capacity: int
    grain: int
    descriptor: int
    descriptor_size: int
    per_table: int
    redundant_directory: int
    directory: int
    overhead: int
    unclean_shutdown: int
    line_ends: bytes
    compression: int


def read_header(file: SourceFile, at: int = 0) -> Header:
    """The header, or the footer, at byte `at`. Raises MigrationFailed (`source-not-vmdk`, `source-unsupported`)."""
    data = file.read(at, SECTOR)
    if len(data) < SECTOR:
        raise faults.not_vmdk(file.path, f"it ends after {file.size} bytes, inside its header")
    magic, *fields = HEADER.unpack_from(data)
    header = Header(*fields)
    if magic != MAGIC:
        raise faults.not_vmdk(file.path, f"there is no sparse header at byte {at}")
    if header.version not in (1, 2, 3):
        raise faults.not_vmdk(file.path, f"its sparse header has version {header.version}, known are 1 to 3")
    if header.line_ends != LINE_ENDS and any(header.line_ends):
        raise faults.not_vmdk(file.path, "line ends in its header were converted: it was transferred as text")
    if not SMALLEST_GRAIN <= header.grain <= LARGEST_GRAIN or header.grain & (header.grain - 1):
        raise faults.not_vmdk(
            file.path,
            f"its grains have {header.grain} sectors, not a power of two from {SMALLEST_GRAIN} to {LARGEST_GRAIN}",
        )
    if not SMALLEST_TABLE <= header.per_table <= LARGEST_TABLE:
        raise faults.not_vmdk(
            file.path, f"its grain tables have {header.per_table} entries, not {SMALLEST_TABLE} to {LARGEST_TABLE}"
        )
    if header.compression > DEFLATE or bool(header.flags & COMPRESSED) != (header.compression == DEFLATE):
        raise faults.unsupported(
            file.path,
            f"is compressed by method {header.compression} with flags {header.flags:#x}",
            "Export it again: only deflate (1) is supported",
        )
    check_size(header.capacity, file.path)
    return header


def embedded_descriptor(file: SourceFile, header: Header) -> bytes:
    """The descriptor inside a sparse extent. Its first line does not matter: tools spell it in several ways."""
    if header.descriptor == 0 or header.descriptor_size == 0:
        raise faults.is_extent(file.path)
    if header.descriptor_size * SECTOR > LIMIT:
        raise faults.not_vmdk(file.path, f"its descriptor is larger than {LIMIT} bytes")
    if header.descriptor * SECTOR > file.size:
        raise faults.not_vmdk(file.path, f"its descriptor would lie at byte {header.descriptor * SECTOR}")
    text = file.read(header.descriptor * SECTOR, header.descriptor_size * SECTOR).partition(b"\0")[0]
    if not text:
        raise faults.not_vmdk(file.path, f"there is no descriptor at byte {header.descriptor * SECTOR}")
    return text


@dataclass(frozen=True)
class SparseExtent:
    """An extent whose tables were read and checked."""

    file: SourceFile
    grains: GrainMap
    stored: int
    marked: bool = False
    """A marker precedes each compressed grain."""

    @property
    def start(self) -> int:
        return self.grains.start

    @property
    def stop(self) -> int:
        return self.grains.stop

    def pieces(self, lo: int, hi: int) -> Iterator[ExtentPiece]:
        return self.grains.pieces(lo, hi)

    def load(self, forward: Forward, guest: int, length: int, offset: int) -> Buffer:
        """Guest bytes in the one compressed grain at byte `offset` of the file."""
        grain = self.grains.grain
        begin = (guest - self.start) // grain * grain
        needed = min(grain, self.stop - self.start - begin)
        data = stream.inflate(forward, offset, begin // SECTOR, grain, needed, marked=self.marked)
        skip = guest - self.start - begin
        return data if length == len(data) else memoryview(data)[skip : skip + length]


def open_sparse(file: SourceFile, header: Header, start: int, stop: int) -> SparseExtent:
    """The extent in `file` with the guest bytes `start` to `stop`; its tables have been read and checked.

    `stop` is from the descriptor. The header may say more, rounded up: VirtualBox shows the guest the descriptor's
    number. If the first set of tables is damaged, the redundant set is used. Raises
    MigrationFailed (`source-truncated`, `source-corrupt`, `disk-read-failed`).
    """
    directory, whole = header.directory, False
    if directory == DIRECTORY_AT_END:
        at = stream.find_footer(file, max(1, header.overhead) * SECTOR, header.capacity, header.grain)
        footer, whole = read_header(file, at), True
        if (footer.capacity, footer.grain, footer.per_table) != (header.capacity, header.grain, header.per_table):
            raise faults.corrupt(file.path, f"its footer at byte {at} contradicts its header")
        directory = footer.directory
    metadata = [range(SECTOR)]
    if header.descriptor:
        metadata.append(_sectors(header.descriptor, header.descriptor_size))
    primary = GrainMap(
        file=file,
        start=start,
        stop=start + header.capacity * SECTOR,
        grain=header.grain * SECTOR,
        per_table=header.per_table,
        directory=directory * SECTOR,
        reserved=tuple(metadata),
        zero_entries=bool(header.flags & ZERO_GRAINS),
        packed=header.compression == DEFLATE,
        whole=whole,
    )
    spare = replace(primary, directory=header.redundant_directory * SECTOR) if header.flags & REDUNDANT else None
    grains, stored = _until(stop, *_survey(primary, spare))
    return SparseExtent(file, grains, stored, marked=bool(header.flags & MARKERS))


def _survey(primary: GrainMap, spare: GrainMap | None) -> tuple[GrainMap, int]:
    """The valid tables, and the bytes that they map. Wiped tables count as damaged."""
    try:
        stored = primary.survey()
    except MigrationFailed as damage:
        if spare is None:
            raise
        try:
            return spare, spare.survey()
        except MigrationFailed:
            raise damage from None
    if stored == 0 and spare is not None:
        with contextlib.suppress(MigrationFailed):
            stored = spare.survey()
            return (spare if stored else primary), stored
    return primary, stored


def _until(stop: int, grains: GrainMap, stored: int) -> tuple[GrainMap, int]:
    """The tables and the bytes that they map, up to `stop`; the header's rounding may not hide a grain with data."""
    if stop == grains.stop:
        return grains, stored
    rounded = stop < grains.stop and (grains.stop - grains.start) % min(grains.grain, ROUNDED) == 0
    beyond = grains.start + -(-(stop - grains.start) // grains.grain) * grains.grain
    if not rounded or any(piece.kind is not PieceKind.ZERO for piece in grains.pieces(beyond, grains.stop)):
        raise faults.corrupt(
            grains.file.path,
            f"its header describes {grains.stop - grains.start} bytes, the descriptor {stop - grains.start}",
        )
    shorter = replace(grains, stop=stop)
    return shorter, shorter.survey()


def _sectors(first: int, count: int) -> range:
    return range(first * SECTOR, (first + count) * SECTOR)
