"""VDI, the disk format of VirtualBox, as a source: header and block map, dynamic or fixed.

Source: VirtualBox, include/VBox/vd-image formats as QEMU documents them in block/vdi.c (all numbers little-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

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

MAGIC, MAGIC_AT = b"\x7f\x10\xda\xbe", 0x40
HEADER_BYTES = 512
START = struct.Struct("<4sIII")
"""At MAGIC_AT: magic, version, bytes of the header, type of the disk."""
PLACES = struct.Struct("<II")
"""At 0x154: the offsets of the block map and the blocks."""
SIZES = struct.Struct("<IIQIIII16s16s16s16s")
"""At 0x168: bytes of a sector, unused, of the disk, of a block, of its extra data; all blocks, allocated ones. Then the
UUIDs of the disk, of its last change, of its parent and of its parent's last change."""
VERSION = 0x10001
DYNAMIC, FIXED, UNDO, DIFFERENCING = 1, 2, 3, 4
NAMES = {DYNAMIC: "dynamic", FIXED: "fixed"}
SECTOR = 512
BLOCK = 1 << 20
"""Bytes: the only size that VirtualBox writes and QEMU reads."""
UNALLOCATED = 0xFFFFFFFE
"""Map entries from this value on are no blocks, and read as zeros."""
NOBODY = bytes(16)


@dataclass(frozen=True)
class Vdi(WholeBlocks):
    """`map_at` and `blocks_at` are in bytes; `blocks` is the number of blocks."""

    file: SourceFile
    subformat: str
    virtual_size: int
    map_at: int
    blocks_at: int
    blocks: int

    @property
    def qemu_node(self) -> QemuNode:
        return QemuNode("vdi")

    def pieces(self, lo: int, hi: int) -> Iterator[StoredPiece]:
        """See `BlockMap.pieces`."""
        for number, at, length in self.stored_blocks(lo, hi):
            yield StoredPiece(number * BLOCK, length, at)

    def stored_blocks(self, lo: int, hi: int) -> Iterator[Block]:
        """The stored blocks that [lo, hi) touches. Raises as `within_file` does."""
        return within_file(self.file, self._named(lo, hi))

    def _named(self, lo: int, hi: int) -> Iterator[Block]:
        for number, entry in entries(self.file, self.map_at, lo // BLOCK, -(-hi // BLOCK), code="<I", absent=b"\xff"):
            if entry < UNALLOCATED:
                length = min(BLOCK, self.virtual_size - number * BLOCK)
                yield Block(number, self.blocks_at + entry * BLOCK, length)


def read_uuids(file: SourceFile) -> tuple[bytes, bytes] | None:
    """The UUIDs of a VDI and of its parent, NOBODY for none; None for a file that is no VDI."""
    header = file.read(0, HEADER_BYTES)
    if len(header) < HEADER_BYTES or not header[MAGIC_AT:].startswith(MAGIC):
        return None
    *_, image, _, link, _ = SIZES.unpack_from(header, 0x168)
    return image, link


def read_vdi(file: SourceFile) -> Vdi:
    """Raises MigrationFailed (`source-corrupt`, `source-truncated`, `source-unsupported`, `source-has-parent`)."""
    header = file.read_whole(0, HEADER_BYTES)
    _, version, _, kind = START.unpack_from(header, MAGIC_AT)
    map_at, blocks_at = PLACES.unpack_from(header, 0x154)
    sector, _, size, block, extra, blocks, _, _, _, link, parent = SIZES.unpack_from(header, 0x168)
    if version != VERSION:
        raise faults.unsupported(file.path, f"is VDI of version {version:#x}", "Clone it with `VBoxManage clonemedium`")
    if kind in (UNDO, DIFFERENCING) or link != NOBODY or parent != NOBODY:
        raise faults.has_parent(file.path, "is a VirtualBox snapshot: it contains only the differences from its parent")
    if kind not in NAMES:
        raise faults.corrupt(file.path, f"its header says that it is of type {kind}")
    if sector != SECTOR or block != BLOCK:
        raise faults.unsupported(
            file.path,
            f"has sectors of {sector} and blocks of {block} bytes, not {SECTOR} and {BLOCK}",
            "Clone it with `VBoxManage clonemedium`",
        )
    if extra:
        raise faults.unsupported(
            file.path, f"has {extra} bytes of extra data in each block", "Clone it with `VBoxManage clonemedium`"
        )
    size += -size % SECTOR  # VBoxManage can write half a sector, and QEMU counts it as a whole one
    faults.check_disk_size(file.path, size)
    if size == 0 or blocks < -(-size // BLOCK):
        raise faults.corrupt(file.path, f"its header describes a disk of {size} bytes in {blocks} blocks")
    if map_at % SECTOR or blocks_at % SECTOR or not HEADER_BYTES <= map_at <= blocks_at - blocks * 4:
        raise faults.corrupt(file.path, f"its block map lies at byte {map_at}, its blocks at byte {blocks_at}")
    if map_at + blocks * 4 > file.size:
        raise faults.truncated(file.path, f"its block map ends at byte {map_at + blocks * 4}, the file at {file.size}")
    disk = Vdi(file, NAMES[kind], size, map_at, blocks_at, -(-size // BLOCK))
    require_apart(file, disk.stored_blocks(0, size), BLOCK)
    return disk
