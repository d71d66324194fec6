"""VHD, the disk format of Virtual PC, older Hyper-V, XenServer and Azure, as a source: footer, header and block table.

Source: Microsoft, Virtual Hard Disk Image Format Specification 1.0 (2006); all numbers big-endian.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from hyper2kvmd.disk import faults
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.sources.block_map.table import (
    Block,
    StoredPiece,
    WholeBlocks,
    entries,
    require_apart,
    within_file,
)
from hyper2kvmd.disk.sources.source import QemuNode
from hyper2kvmd.errors import MigrationFailed

MAGIC = b"conectix"
SECTOR = FOOTER_BYTES = 512
OLD_FOOTER_BYTES = 511
"""Before Virtual PC 2004 (section "Hard Disk Footer Format"): the last, reserved byte is missing."""
FOOTER = struct.Struct(">8sIIQI4sIIQQHBBII16s")
FOOTER_CHECKSUM = slice(64, 68)
VERSION = 1
"""The upper half of the version's four bytes; the lower one counts compatible changes."""
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
NAMES = {FIXED: "fixed", DYNAMIC: "dynamic", DIFFERENCING: "differencing"}
BY_GEOMETRY = (b"vpc ", b"qemu")
"""Creators for which the geometry is the disk's size: Virtual PC shows no more to its guest. Source: QEMU 10,
block/vpc.c, vpc_ignore_current_size()."""
LARGEST_GEOMETRY = 65535 * 16 * 255
"""Sectors. Every larger disk has this geometry as well."""
HEADER = struct.Struct(">8sQQIIII16sI4x512s")
HEADER_MAGIC, HEADER_BYTES = b"cxsparse", 1024
HEADER_CHECKSUM = slice(36, 40)
UNALLOCATED = 0xFFFFFFFF
SOME_MARKED = re.compile(rb"\xff+|[^\0\xff]")
"""In a bitmap: bytes whose sectors were all written, or one byte with a part of them."""
MARKED_IN_BYTE = tuple(tuple(match.span() for match in re.finditer("1+", f"{byte:08b}")) for byte in range(256))
"""Ranges of written sectors by the byte of a bitmap; the highest bit is the first sector."""
SMALLEST_BLOCK, LARGEST_BLOCK = 64 << 10, 256 << 20
"""Bytes; 2 MiB is usual, 512 KiB the other size that Hyper-V offers."""


@dataclass(frozen=True)
class Footer:
    """`length` is 0 for the copy at the start of the file. Sizes are in bytes."""

    length: int
    kind: int
    size: int
    geometry: int
    creator: bytes
    header: int
    version: int

    @property
    def essence(self) -> tuple[int, int, int, int]:
        """What both copies must agree on."""
        return self.kind, self.size, self.geometry, self.header

    @property
    def by_geometry(self) -> bool:
        return self.creator in BY_GEOMETRY and self.geometry != LARGEST_GEOMETRY * SECTOR

    @property
    def disk_size(self) -> int:
        return self.geometry if self.by_geometry else self.size // SECTOR * SECTOR

    @property
    def subformat(self) -> str:
        name = NAMES[self.kind]
        if self.disk_size == self.size:
            return name
        return f"{name}, {self.disk_size} bytes by its geometry instead of {self.size}"


@dataclass(frozen=True)
class FixedVhd(WholeBlocks):
    """The disk's bytes, then the footer."""

    file: SourceFile
    subformat: str
    virtual_size: int

    @property
    def qemu_node(self) -> QemuNode:
        """Not as a VHD: QEMU would look for a footer in the first sector, which is the guest's."""
        return QemuNode("raw", {"size": self.virtual_size})

    def pieces(self, lo: int, hi: int) -> Iterator[StoredPiece]:
        yield StoredPiece(lo, hi - lo, lo)


@dataclass(frozen=True)
class DynamicVhd:
    """`block` and `table` in bytes; each block follows a bitmap of its sectors."""

    file: SourceFile
    subformat: str
    virtual_size: int
    block: int
    table: int
    known_to_qemu: bool
    """Whether the copy of the footer is sound, the only one that QEMU reads."""

    @cached_property
    def qemu_node(self) -> QemuNode | None:
        """None if sectors are marked as never written: QEMU ignores the bitmaps and reads what lies there."""
        if self.known_to_qemu and all(whole for _, _, _, whole in self._blocks(0, self.virtual_size)):
            return QemuNode("vpc")
        return None

    @property
    def bitmap(self) -> int:
        """Bytes, padded to whole sectors."""
        return -(-self.block // SECTOR // 8 // SECTOR) * SECTOR

    def pieces(self, lo: int, hi: int) -> Iterator[StoredPiece]:
        """One for each block: 2 TiB can have two billion ranges of written sectors."""
        for guest, length, at, whole in self._blocks(lo, hi):
            if whole:
                yield StoredPiece(guest, length, at + self.bitmap)
                continue
            bits = self.file.read_whole(at, self.bitmap)[: -(-length // SECTOR // 8)].rstrip(b"\0")
            start = (len(bits) - len(bits.lstrip(b"\0"))) * 8 * SECTOR
            stop = min(len(bits) * 8 * SECTOR, length)
            if start < stop:
                yield StoredPiece(guest + start, stop - start, at + self.bitmap + start, partial=True)

    def written(self, guest: int, offset: int, data: bytes) -> bytes:
        start = guest % self.block
        bits = self.file.read_whole(offset - start - self.bitmap, self.bitmap)
        begin, end = start // SECTOR, (start + len(data)) // SECTOR
        kept = bytearray(len(data))
        for first, stop in marked(bits, begin, end):
            place = slice((max(first, begin) - begin) * SECTOR, (stop - begin) * SECTOR)
            kept[place] = data[place]
        return bytes(kept)

    def _blocks(self, lo: int, hi: int) -> Iterator[tuple[int, int, int, bool]]:
        """(guest, length, offset of the bitmap, whether all sectors are marked as written) of each stored block."""
        for number, at, both in self.stored_blocks(lo, hi):
            length = both - self.bitmap
            whole, rest = divmod(length // SECTOR, 8)
            bits = self.file.read_whole(at, self.bitmap)
            full = bits[:whole].count(0xFF) == whole and (not rest or bits[whole] >> (8 - rest) == (1 << rest) - 1)
            yield number * self.block, length, at, full

    def stored_blocks(self, lo: int, hi: int) -> Iterator[Block]:
        """The stored blocks that [lo, hi) touches. Raises as `within_file` does."""
        return within_file(self.file, self._named(lo, hi))

    def _named(self, lo: int, hi: int) -> Iterator[Block]:
        found = entries(
            self.file,
            self.table,
            lo // self.block,
            -(-hi // self.block),
            code=">I",
            absent=UNALLOCATED.to_bytes(4, "big")[:1],
        )
        for number, entry in found:
            if entry == UNALLOCATED:
                continue
            if entry == 0:
                raise faults.corrupt(self.file.path, f"block {number} of the disk is said to lie at its very start")
            length = min(self.block, self.virtual_size - number * self.block)
            yield Block(number, entry * SECTOR, self.bitmap + length)


def marked(bits: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges of written sectors in [begin, end), up to 7 sectors before it; one may touch the next."""
    for match in SOME_MARKED.finditer(bits, begin // 8, -(-end // 8)):
        at, byte = match.start() * 8, bits[match.start()]
        ranges = MARKED_IN_BYTE[byte] if byte != 0xFF else ((0, len(match[0]) * 8),)
        for first, stop in ranges:
            if at + first < end:
                yield at + first, min(at + stop, end)


def has_footer(file: SourceFile) -> bool:
    """Whether the file ends in a footer, whoever wrote it."""
    return any(
        file.read(max(0, file.size - length), length).startswith(MAGIC) for length in (FOOTER_BYTES, OLD_FOOTER_BYTES)
    )


def read_vhd(file: SourceFile) -> FixedVhd | DynamicVhd:
    """Raises MigrationFailed (`source-corrupt`, `source-truncated`, `source-unsupported`, `source-has-parent`).

    The footer at the end counts. The guest of a fixed disk can write anything to its first sector, also a false footer.
    The copy at the start of any other disk is for a damaged footer.
    """
    end = _footer_at_end(file)
    if end is not None and end.kind == FIXED:
        return _fixed(file, end)
    start = _footer(file, 0, 0)
    footer = end or start
    if footer is None or footer.kind == FIXED:
        raise _without_footer(file)
    if start and end and start.essence != end.essence:
        raise faults.corrupt(file.path, "its footer and the copy of it at the start describe different disks")
    return _dynamic(file, footer, known_to_qemu=start is not None)


def _footer_at_end(file: SourceFile) -> Footer | None:
    for length in (FOOTER_BYTES, OLD_FOOTER_BYTES):
        if file.size >= length and (found := _footer(file, file.size - length, length)):
            return found
    return None


def _footer(file: SourceFile, at: int, length: int) -> Footer | None:
    """The footer at byte `at`; None if there is none, or a damaged one."""
    data = file.read(at, length or FOOTER_BYTES)
    if not data.startswith(MAGIC) or len(data) < OLD_FOOTER_BYTES or not _sound(data, FOOTER_CHECKSUM):
        return None
    _, _, version, header, _, creator, _, _, _, size, cylinders, heads, sectors, kind, _, _ = FOOTER.unpack_from(data)
    footer = Footer(length, kind, size, cylinders * heads * sectors * SECTOR, creator, header, version)
    if version >> 16 != VERSION:
        raise faults.unsupported(file.path, f"is a VHD of version {version:#x}", "Convert it on Hyper-V: Convert-VHD")
    if kind not in NAMES:
        raise faults.corrupt(file.path, f"its footer says that it is of type {kind}")
    faults.check_disk_size(file.path, footer.disk_size)
    if footer.disk_size == 0:
        raise faults.corrupt(file.path, "its footer describes a disk of 0 bytes")
    return footer


def _sound(data: bytes, checksum: slice) -> bool:
    """Whether the checksum is right: the complement of the sum of all bytes but its own."""
    return ~(sum(data) - sum(data[checksum])) & 0xFFFFFFFF == int.from_bytes(data[checksum], "big")


def _without_footer(file: SourceFile) -> MigrationFailed:
    if has_footer(file):
        return faults.corrupt(file.path, "the checksum of its footer is wrong")
    return faults.truncated(file.path, f"no footer of a VHD ends it at byte {file.size}")


def _fixed(file: SourceFile, footer: Footer) -> FixedVhd:
    size = footer.disk_size
    if size + footer.length > file.size:
        raise faults.truncated(file.path, f"it has {file.size - footer.length} of the {size} bytes of its disk")
    return FixedVhd(file, footer.subformat, size)


def _dynamic(file: SourceFile, footer: Footer, *, known_to_qemu: bool) -> DynamicVhd:
    data = file.read_whole(footer.header, HEADER_BYTES)
    magic, _, table, version, count, block, _, _, _, parent = HEADER.unpack_from(data)
    if magic != HEADER_MAGIC or not _sound(data, HEADER_CHECKSUM):
        raise faults.corrupt(file.path, f"there is no sound header at byte {footer.header}")
    if footer.kind == DIFFERENCING:
        name = parent.decode("utf-16-be", errors="replace").split("\0")[0]
        raise faults.differencing(file.path, name)
    if version >> 16 != VERSION:
        raise faults.unsupported(
            file.path, f"has a header of version {version:#x}", "Convert it on Hyper-V: Convert-VHD"
        )
    if block & (block - 1) or not SMALLEST_BLOCK <= block <= LARGEST_BLOCK:
        raise faults.unsupported(
            file.path,
            f"has blocks of {block} bytes, not a power of two from 64 KiB to 256 MiB",
            "Convert it on Hyper-V: Convert-VHD -BlockSizeBytes 2MB",
        )
    needed = -(-footer.disk_size // block)
    if count < needed:
        raise faults.corrupt(file.path, f"its block table has {count} entries for {needed} blocks")
    if table % SECTOR or table < FOOTER_BYTES:
        raise faults.corrupt(file.path, f"its block table lies at byte {table}")
    if table + needed * 4 > file.size:
        raise faults.truncated(file.path, f"its block table ends at byte {table + needed * 4}, the file at {file.size}")
    disk = DynamicVhd(file, footer.subformat, footer.disk_size, block, table, known_to_qemu)
    require_apart(file, disk.stored_blocks(0, disk.virtual_size), disk.bitmap + block)
    return disk
