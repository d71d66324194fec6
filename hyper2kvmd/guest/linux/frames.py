"""Where a compressed stream in a file ends, for formats whose tools would read on.

No data is unpacked: the sizes of the blocks lead to the end.
Sources: RFC 8878 (zstd), lz4_Frame_format.md, lib/decompress_unlz4.c and lib/decompress_unlzo.c of Linux, lzop(1).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from hyper2kvmd.guest.linux.cpio import Damage

FindEnd = Callable[[int, int, int], int]
"""Takes an open file, the first byte of a stream in it, and the file's size. Raises Damage."""
ZSTD = b"\x28\xb5\x2f\xfd"
LZ4_LEGACY = b"\x02\x21\x4c\x18"
LZ4_FRAME = b"\x04\x22\x4d\x18"
LZOP = b"\x89LZO\0\r\n\x1a\n"
LARGEST_LEGACY_BLOCK = (8 << 20) + (8 << 20) // 255 + 16
"""Bytes: what 8 MiB can become at most (LZ4_COMPRESSBOUND)."""
PROBED = 64 << 10
"""Bytes by which a gzip member is told from a block of lz4."""


@dataclass
class _Cursor:
    """A place in an open file of `size` bytes."""

    file: int
    at: int
    size: int

    def take(self, count: int) -> bytes:
        data = os.pread(self.file, count, self.at)
        if len(data) < count:
            raise Damage("it ends too early")
        self.at += count
        return data

    def number(self, width: int, order: str = "little") -> int:
        return int.from_bytes(self.take(width), "big" if order == "big" else "little")

    def skip(self, count: int) -> None:
        self.at += count
        if self.at > self.size:
            raise Damage("it ends too early")


def end_of_zstd(file: int, at: int, size: int) -> int:
    """Of one frame (RFC 8878, section 3.1.1)."""
    cursor = _Cursor(file, at + len(ZSTD), size)
    flags = cursor.number(1)
    single = flags >> 5 & 1
    sizes = (1 if single else 0, 2, 4, 8)
    cursor.skip((0 if single else 1) + (0, 1, 2, 4)[flags & 3] + sizes[flags >> 6])
    last = False
    while not last:
        header = cursor.number(3)
        last, kind = bool(header & 1), header >> 1 & 3
        if kind == 3:
            raise Damage(f"its block at byte {cursor.at - 3} is of a reserved type")
        cursor.skip(1 if kind == 1 else header >> 3)
    cursor.skip(4 if flags & 4 else 0)
    return cursor.at


def end_of_lz4(file: int, at: int, size: int) -> int:
    """Of one frame of the present format, which the kernel does not unpack."""
    cursor = _Cursor(file, at + len(LZ4_FRAME), size)
    flags = cursor.number(1)
    cursor.skip(1 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0) + 1)
    while block := cursor.number(4):
        cursor.skip((block & 0x7FFFFFFF) + (4 if flags & 16 else 0))
    cursor.skip(4 if flags & 4 else 0)
    return cursor.at


def end_of_legacy_lz4(file: int, at: int, size: int) -> int:
    """Of all blocks: there is no end mark but the end of the file, or a block of no size.

    Where another archive follows directly, the kernel takes it for a block, and stops.
    """
    cursor = _Cursor(file, at + len(LZ4_LEGACY), size)
    while cursor.at + 4 <= size:
        length = cursor.number(4)
        if length == int.from_bytes(LZ4_LEGACY, "little"):
            continue
        if length == 0 or length > LARGEST_LEGACY_BLOCK or _is_gzip(file, cursor.at - 4):
            return cursor.at - 4
        cursor.skip(length)
    return cursor.at


def _is_gzip(file: int, at: int) -> bool:
    """Its magic number is a possible size of a block; a header and compressed data that fit are not a block's."""
    data = os.pread(file, PROBED, at)
    if not data.startswith(b"\x1f\x8b\x08"):
        return False
    try:
        zlib.decompressobj(31).decompress(data, PROBED)
    except zlib.error:
        return False
    return True


def end_of_lzop(file: int, at: int, size: int) -> int:
    """Of one file of lzop's; all numbers are big-endian."""
    cursor = _Cursor(file, at + len(LZOP), size)
    version = cursor.number(2, "big")
    modern = version >= 0x0940
    cursor.skip(2 + (2 if modern else 0) + 1 + (1 if modern else 0))
    flags = cursor.number(4, "big")
    cursor.skip((4 if flags & 0x800 else 0) + 8 + (4 if modern else 0))
    cursor.skip(cursor.number(1) + 4)
    if flags & 0x40:
        cursor.skip(cursor.number(4, "big") + 4)
    plain_sums, packed_sums = 4 * (flags & 1) + 4 * (flags >> 8 & 1), 4 * (flags >> 1 & 1) + 4 * (flags >> 9 & 1)
    while plain := cursor.number(4, "big"):
        packed = cursor.number(4, "big")
        cursor.skip(plain_sums + (packed_sums if packed < plain else 0) + packed)
    return cursor.at
