"""VHDX, the disk format of Hyper-V, as a source: headers, regions, metadata and the block allocation table.

Source: Microsoft, [MS-VHDX] Virtual Hard Disk v2 File Format, sections 2.2 to 2.6 (all numbers little-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from hyper2kvmd.disk import faults
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.sources.block_map.crc32c import crc32c
from hyper2kvmd.disk.sources.block_map.table import (
    Block,
    StoredPiece,
    WholeBlocks,
    entries,
    require_apart,
    within_file,
)
from hyper2kvmd.disk.sources.source import QemuNode

MAGIC = b"vhdxfile"
KIB, MIB = 1 << 10, 1 << 20
HEADERS = (64 * KIB, 128 * KIB)
HEADER_BYTES = 4 * KIB
HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
REGION_TABLES = (192 * KIB, 256 * KIB)
REGION_TABLE_BYTES = 64 * KIB
TABLE_START = struct.Struct("<4sIII")
REGION = struct.Struct("<16sQII")
METADATA_START = struct.Struct("<8sHH20x")
METADATA = struct.Struct("<16sIIII")
MOST_ENTRIES = 2047
CHECKSUM = slice(4, 8)
REQUIRED_REGION, REQUIRED_ITEM = 1, 4
LEAVE_ALLOCATED, HAS_PARENT = 1, 2


def _guid(text: str) -> bytes:
    return UUID(text).bytes_le


BAT_REGION = _guid("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA_REGION = _guid("8b7ca206-4790-4b9a-b8fe-575f050f886e")
FILE_PARAMETERS = _guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
DISK_SIZE = _guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
DISK_ID = _guid("beca12ab-b2e6-4523-93ef-c309e000c746")
LOGICAL_SECTOR = _guid("8141bf1d-a96f-4709-ba47-f233a8faab5f")
PHYSICAL_SECTOR = _guid("cda348c7-445d-4471-9cc9-e9885251c556")
PARENT_LOCATOR = _guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
KNOWN_ITEMS = {FILE_PARAMETERS, DISK_SIZE, DISK_ID, LOGICAL_SECTOR, PHYSICAL_SECTOR, PARENT_LOCATOR}
SECTOR = 512
BITMAP_SECTORS = 1 << 23
"""Sectors that one block of sector bitmaps covers; its entry follows those of the blocks that it covers."""
RESERVED, PARTIALLY_PRESENT = 4, 7
"""States of a block; 6 is a block that is stored."""
ZEROS = (0, 1, 2, 3, 5)
"""States that read as zeros. Version 0.95 wrote 5 for unmapped blocks. Source: QEMU 10, block/vhdx.h."""


@dataclass(frozen=True)
class Region:
    offset: int
    length: int


@dataclass(frozen=True)
class Vhdx(WholeBlocks):
    """`block` in bytes; `table` is the block allocation table."""

    file: SourceFile
    subformat: str
    virtual_size: int
    block: int
    table: Region

    @property
    def blocks(self) -> int:
        return -(-self.virtual_size // self.block)

    @property
    def between_bitmaps(self) -> int:
        return BITMAP_SECTORS * SECTOR // self.block

    @property
    def entries(self) -> int:
        """Blocks and, between them, bitmaps."""
        return self.blocks + (self.blocks - 1) // self.between_bitmaps

    @property
    def qemu_node(self) -> QemuNode:
        return QemuNode("vhdx")

    def pieces(self, lo: int, hi: int) -> Iterator[StoredPiece]:
        """See `BlockMap.pieces`."""
        for number, at, length in self.stored_blocks(lo, hi):
            yield StoredPiece(number * self.block, length, at)

    def stored_blocks(self, lo: int, hi: int) -> Iterator[Block]:
        """The stored blocks that [lo, hi) touches. Raises as `within_file` does."""
        return within_file(self.file, self._named(lo, hi))

    def _named(self, lo: int, hi: int) -> Iterator[Block]:
        first, last = lo // self.block, (hi - 1) // self.block
        table = entries(
            self.file, self.table.offset, self._index(first), self._index(last) + 1, code="<Q", absent=b"\0"
        )
        for index, entry in table:
            turn, inside = divmod(index, self.between_bitmaps + 1)
            state, at = entry & 7, entry >> 20 << 20
            if inside == self.between_bitmaps or state in ZEROS:
                continue
            number = turn * self.between_bitmaps + inside
            if state == RESERVED:
                raise faults.corrupt(self.file.path, f"block {number} of the disk has the reserved state {state}")
            if state == PARTIALLY_PRESENT:
                raise faults.corrupt(self.file.path, f"block {number} of the disk is said to lie in a parent as well")
            if at < MIB:
                raise faults.corrupt(self.file.path, f"block {number} of the disk is said to lie at its very start")
            yield Block(number, at, min(self.block, self.virtual_size - number * self.block))

    def _index(self, number: int) -> int:
        """The entry of a block in the table."""
        return number + number // self.between_bitmaps


def read_vhdx(file: SourceFile) -> Vhdx:
    """Raises MigrationFailed (`source-corrupt`, `source-truncated`, `source-unsupported`, `source-has-parent`,
    `source-unclean`)."""
    _check_log(file)
    regions = _regions(file)
    items = _metadata(file, regions[METADATA_REGION])
    if PARENT_LOCATOR in items:
        raise faults.differencing(file.path)
    block, flags = struct.unpack("<II", _item(file, items, FILE_PARAMETERS, 8))
    if flags & HAS_PARENT:
        raise faults.differencing(file.path)
    if not MIB <= block <= 256 * MIB or block & (block - 1):
        raise faults.corrupt(file.path, f"its metadata says that blocks have {block} bytes")
    (size,) = struct.unpack("<Q", _item(file, items, DISK_SIZE, 8))
    (sector,) = struct.unpack("<I", _item(file, items, LOGICAL_SECTOR, 4))
    if sector != SECTOR:
        raise faults.unsupported(
            file.path,
            f"has logical sectors of {sector} bytes: its guest would not find its partitions where they are {SECTOR}",
            "Clone the disk inside the guest to one created with New-VHD -LogicalSectorSizeBytes 512",
        )
    if size == 0 or size % SECTOR:
        raise faults.corrupt(file.path, f"its metadata describes a disk of {size} bytes")
    faults.check_disk_size(file.path, size)
    disk = Vhdx(file, "fixed" if flags & LEAVE_ALLOCATED else "dynamic", size, block, regions[BAT_REGION])
    if disk.entries * 8 > disk.table.length:
        raise faults.corrupt(file.path, f"its block table has {disk.table.length} bytes for {disk.entries} entries")
    require_apart(file, disk.stored_blocks(0, size), block)
    return disk


def _check_log(file: SourceFile) -> None:
    """The valid header with the higher number is in force; the changes in its log are not yet in the disk."""
    found: list[tuple[int, bytes]] = []
    for at in HEADERS:
        data = file.read_whole(at, HEADER_BYTES)
        magic, _, number, _, _, log, _, version, _, _ = HEADER.unpack_from(data)
        if magic == b"head" and version == 1 and _sound(data):
            found.append((number, log))
    if not found:
        raise faults.corrupt(file.path, "both of its headers are damaged")
    if max(found)[1] != bytes(16):
        raise faults.unclean(
            file.path,
            "has changes in its log that are not in the disk yet: it was not detached cleanly",
            "Shut the VM down, or attach the disk to Hyper-V once (Mount-VHD, then Dismount-VHD), then copy it again",
        )


def _regions(file: SourceFile) -> dict[bytes, Region]:
    for at in REGION_TABLES:
        data = file.read_whole(at, REGION_TABLE_BYTES)
        magic, _, count, _ = TABLE_START.unpack_from(data)
        if magic == b"regi" and count <= MOST_ENTRIES and _sound(data):
            break
    else:
        raise faults.corrupt(file.path, "both of its region tables are damaged")
    regions: dict[bytes, Region] = {}
    for number in range(count):
        kind, offset, length, flags = REGION.unpack_from(data, TABLE_START.size + number * REGION.size)
        if kind not in (BAT_REGION, METADATA_REGION):
            if flags & REQUIRED_REGION:
                raise faults.unsupported(
                    file.path, f"needs an unsupported region ({UUID(bytes_le=kind)})", "Convert it in Hyper-V"
                )
            continue
        if kind in regions or offset < MIB or offset % MIB or not length:
            raise faults.corrupt(file.path, f"a region of {length} bytes at byte {offset} cannot be")
        if offset + length > file.size:
            raise faults.truncated(file.path, f"a region ends at byte {offset + length}, the file at {file.size}")
        regions[kind] = Region(offset, length)
    if len(regions) < 2:
        raise faults.corrupt(file.path, "its region table lacks the block table or the metadata")
    return regions


def _metadata(file: SourceFile, region: Region) -> dict[bytes, Region]:
    """The positions of its items in the file."""
    if region.length < REGION_TABLE_BYTES:
        raise faults.corrupt(file.path, f"its metadata has {region.length} bytes")
    data = file.read_whole(region.offset, REGION_TABLE_BYTES)
    magic, _, count = METADATA_START.unpack_from(data)
    if magic != b"metadata" or count > MOST_ENTRIES:
        raise faults.corrupt(file.path, f"there is no metadata at byte {region.offset}")
    items: dict[bytes, Region] = {}
    for number in range(count):
        kind, offset, length, flags, _ = METADATA.unpack_from(data, METADATA_START.size + number * METADATA.size)
        if kind not in KNOWN_ITEMS:
            if flags & REQUIRED_ITEM:
                raise faults.unsupported(
                    file.path, f"needs unsupported metadata ({UUID(bytes_le=kind)})", "Convert it in Hyper-V"
                )
            continue
        if kind in items or offset + length > region.length:
            raise faults.corrupt(file.path, f"metadata of {length} bytes at {offset} of its region cannot be")
        items[kind] = Region(region.offset + offset, length)
    return items


def _item(file: SourceFile, items: dict[bytes, Region], kind: bytes, length: int) -> bytes:
    item = items.get(kind)
    if item is None or item.length < length:
        raise faults.corrupt(file.path, f"its metadata lacks {UUID(bytes_le=kind)}")
    return file.read_whole(item.offset, length)


def _sound(data: bytes) -> bool:
    """Whether the checksum of a header or region table is right; its own bytes count as zero."""
    claimed = int.from_bytes(data[CHECKSUM], "little")
    blank = bytearray(data)
    blank[CHECKSUM] = bytes(4)
    return crc32c(blank) == claimed
