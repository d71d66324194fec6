"""The content of a byte range by its magic numbers, as blkid names it.

Sources: the on-disk headers of ext2/3/4 (linux fs/ext4/ext4.h), XFS (xfs_format.h), btrfs (btrfs_tree.h), FAT
(Microsoft fatgen103), NTFS, swap (linux include/linux/swap.h), LVM2 (lib/format_text), md (md_p.h), LUKS. For content
without repairs, only the magic number: reiserfs_fs.h, jfs_superblock.h, FreeBSD's ffs/fs.h, f2fs_fs.h, Apple's
TN1150 and APFS reference, bcache.h, OpenZFS's uberblock_impl.h, util-linux for VMFS.
"""

from __future__ import annotations

import itertools
import struct
import uuid
from dataclasses import dataclass
from typing import Protocol

HEAD = 8192
PAGE_SIZES = (4096, 8192, 16384, 65536)
EXT4_INCOMPAT = 0x40 | 0x80 | 0x200
"""extents, 64bit, flex_bg: none of them in ext3."""
MD_MAGIC = struct.pack("<I", 0xA92B4EFC)

LINUX_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs"})
"""Those that are searched for a Linux root."""
MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (65588, b"ReIsEr", "reiserfs"),
    (8244, b"ReIsEr", "reiserfs"),
    (32768, b"JFS1", "jfs"),
    (65536 + 1372, b"\x19\x01\x54\x19", "ufs"),
    (8192 + 1372, b"\x54\x19\x01\x00", "ufs"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (1024, b"H+\0\x04", "hfsplus"),
    (1024, b"HX\0\x05", "hfsplus"),
    (32, b"NXSB", "apfs"),
    (1 << 20, b"\x0d\xd0\x01\xc0", "VMFS_volume_member"),
    (4096 + 24, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"), "bcache"),
)
"""Offset, magic number, name."""
UBERBLOCKS, UBERBLOCK, UBERBLOCK_MAGIC = 128 << 10, 1 << 10, (0x00BAB10C).to_bytes(8, "little")
"""In the first ZFS label: offset and length of the ring of uberblocks; the smallest step in it."""


class BlockReader(Protocol):
    """A disk, read by byte range; `size` is in bytes."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes, all inside the disk."""
        ...


@dataclass(frozen=True)
class Content:
    """`type` is blkid's name; `unknown` if no magic number matches."""

    type: str
    uuid: str | None = None
    label: str | None = None
    mounted_at: str | None = None
    """The directory where an ext file system was mounted last."""
    multi_device: bool = False
    """A btrfs on several, or an ext4 with its journal on another, by its superblock or the mount options in it."""


def identify(reader: BlockReader) -> Content:
    """Containers are checked before file systems: a RAID 1 leg also looks like its content."""
    if reader.size < HEAD:
        return Content("unknown")
    head = reader.read(0, HEAD)
    for probe in (_md, _luks, _lvm, _ext, _xfs, _btrfs, _swap, _ntfs, _fat, _foreign):
        found = probe(reader, head)
        if found is not None:
            return found
    return Content("unknown")


def _text(raw: bytes) -> str | None:
    return raw.partition(b"\0")[0].decode("utf-8", errors="replace").strip() or None


def _uuid(raw: bytes) -> str | None:
    return str(uuid.UUID(bytes=raw)) if any(raw) else None


def _md(reader: BlockReader, head: bytes) -> Content | None:
    sectors = reader.size // 512
    places = [0, 4096]
    if reader.size >= 1 << 20:
        places += [((sectors - 16) & ~7) * 512, ((sectors & ~127) - 128) * 512]
    for offset in places:
        block = head[offset : offset + 64] if offset + 64 <= len(head) else reader.read(offset, 64)
        if block[:4] == MD_MAGIC:
            return Content("linux_raid_member", _uuid(_md_uuid(block)))
    return None


def _md_uuid(block: bytes) -> bytes:
    """Format 1 has it in one piece; 0.90 in four numbers in native byte order, the first one apart."""
    if struct.unpack_from("<I", block, 4)[0] != 0:
        return block[16:32]
    return struct.pack(">4I", *struct.unpack_from("<I", block, 20), *struct.unpack_from("<3I", block, 52))


def _luks(_: BlockReader, head: bytes) -> Content | None:
    return Content("crypto_LUKS", _text(head[168:208])) if head[:6] == b"LUKS\xba\xbe" else None


def _lvm(_: BlockReader, head: bytes) -> Content | None:
    for offset in range(0, 2048, 512):
        if head[offset : offset + 8] == b"LABELONE" and head[offset + 24 : offset + 32] == b"LVM2 001":
            start = offset + struct.unpack_from("<I", head, offset + 20)[0]
            raw = head[start : start + 32].decode("ascii", errors="replace")
            cuts = (0, 6, 10, 14, 18, 22, 26, 32)
            return Content("LVM2_member", "-".join(raw[a:b] for a, b in itertools.pairwise(cuts)))
    return None


def _ext(_: BlockReader, head: bytes) -> Content | None:
    block = head[1024:2048]
    if block[56:58] != b"\x53\xef":
        return None
    compat, incompat = struct.unpack_from("<II", block, 92)
    if incompat & 0x8:
        return Content("jbd", _uuid(block[104:120]))
    kind = "ext4" if incompat & EXT4_INCOMPAT else "ext3" if compat & 0x4 else "ext2"
    inode, device = struct.unpack_from("<II", block, 224)
    elsewhere = bool(compat & 0x4 and device and not inode) or b"journal_" in block[512:576]
    uuid, label, place = _uuid(block[104:120]), _text(block[120:136]), _text(block[136:200])
    return Content(kind, uuid, label, mounted_at=place, multi_device=elsewhere)


def _xfs(_: BlockReader, head: bytes) -> Content | None:
    return Content("xfs", _uuid(head[32:48]), _text(head[108:120])) if head[:4] == b"XFSB" else None


def _btrfs(reader: BlockReader, _: bytes) -> Content | None:
    if reader.size < 0x10000 + 1024:
        return None
    block = reader.read(0x10000, 1024)
    if block[64:72] != b"_BHRfS_M":
        return None
    devices = struct.unpack_from("<Q", block, 136)[0]
    return Content("btrfs", _uuid(block[32:48]), _text(block[299:555]), multi_device=devices > 1)


def _swap(reader: BlockReader, head: bytes) -> Content | None:
    for page in PAGE_SIZES:
        if reader.size < page:
            break
        magic = head[page - 10 : page] if page <= len(head) else reader.read(page - 10, 10)
        if magic in (b"SWAPSPACE2", b"SWAP-SPACE"):
            return Content("swap", _uuid(head[1036:1052]), _text(head[1052:1068]))
        if magic[:9] in (b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB000"):
            return Content("swsuspend", _uuid(head[1036:1052]), _text(head[1052:1068]))
    return None


def _ntfs(_: BlockReader, head: bytes) -> Content | None:
    if head[3:11] == b"-FVE-FS-":
        return Content("BitLocker")
    if head[3:11] != b"NTFS    ":
        return None
    return Content("ntfs", f"{struct.unpack_from('<Q', head, 72)[0]:016X}")


def _fat(_: BlockReader, head: bytes) -> Content | None:
    if head[510:512] != b"\x55\xaa":
        return None
    for magic, magic_at, serial_at, label_at in ((b"FAT32   ", 82, 67, 71), (b"FAT1", 54, 39, 43)):
        if head[magic_at : magic_at + len(magic)] == magic:
            serial = struct.unpack_from("<I", head, serial_at)[0]
            label = _text(head[label_at : label_at + 11])
            return Content("vfat", f"{serial >> 16:04X}-{serial & 0xFFFF:04X}", None if label == "NO NAME" else label)
    return None


def _foreign(reader: BlockReader, head: bytes) -> Content | None:
    for offset, magic, name in MAGICS:
        end = offset + len(magic)
        if end <= reader.size and (head[offset:end] if end <= HEAD else reader.read(offset, len(magic))) == magic:
            return Content(name)
    if reader.size >= 2 * UBERBLOCKS:
        ring = reader.read(UBERBLOCKS, UBERBLOCKS)
        for at in range(0, UBERBLOCKS, UBERBLOCK):
            if ring[at : at + 8] in (UBERBLOCK_MAGIC, UBERBLOCK_MAGIC[::-1]):
                return Content("zfs_member")
    return None
