"""The on-disk structures of QCOW2 version 3 with 64 KiB clusters and 16-bit refcounts, as bytes."""

from __future__ import annotations

import struct
import sys
from array import array

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
L2_ENTRIES = CLUSTER // 8
WINDOW = L2_ENTRIES * CLUSTER
"""Bytes of guest space that one L2 table maps."""
REFCOUNTS = CLUSTER // 2
"""Clusters of the file that one refcount block counts."""
COPIED = 1 << 63
COMPRESSED = 1 << 62
SECTOR = 512
SECTORS_SHIFT = 62 - (CLUSTER_BITS - 8)
"""Bit offset, in a compressed entry, of the number of further sectors."""
ZSTD = 1
COMPRESSION_TYPE = 1 << 3
"""Incompatible feature: the header's compression type is not deflate."""
REFCOUNT_ORDER = 4
HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
HEADER_LENGTH = 112


def header(virtual_size: int, l1_entries: int, l1: int, refcount_table: int, table_clusters: int, zstd: bool) -> bytes:
    """The header with its (empty) extensions. Offsets and sizes are bytes, `table_clusters` clusters."""
    fixed = HEADER.pack(
        b"QFI\xfb",
        3,
        0,  # backing file offset
        0,  # its name's length
        CLUSTER_BITS,
        virtual_size,
        0,  # not encrypted
        l1_entries,
        l1,
        refcount_table,
        table_clusters,
        0,  # snapshots
        0,
        COMPRESSION_TYPE if zstd else 0,
        0,  # compatible features
        0,  # autoclear features
        REFCOUNT_ORDER,
        HEADER_LENGTH,
    )
    kind = ZSTD if zstd else 0
    return fixed + bytes([kind]).ljust(HEADER_LENGTH - len(fixed), b"\0") + bytes(8)


def compressed_entry(offset: int, size: int) -> int:
    """The L2 entry of a cluster whose `size` compressed bytes begin at `offset` of the file."""
    more = (offset + size - 1) // SECTOR - offset // SECTOR
    return COMPRESSED | more << SECTORS_SHIFT | offset


def big_endian(table: array[int]) -> bytes:
    """`table` in its stored form; `table` itself is not changed."""
    stored = table[:]
    if sys.byteorder == "little":
        stored.byteswap()
    return stored.tobytes()


def clusters(size: int) -> int:
    """Clusters that `size` bytes take."""
    return -(-size // CLUSTER)


def closing(used: int, counted: int) -> tuple[int, int]:
    """Refcount blocks and table clusters to add to `used` clusters after `counted` blocks are written."""
    blocks = 0
    while True:
        table = clusters((counted + blocks) * 8) or 1
        if used + blocks + table <= (counted + blocks) * REFCOUNTS:
            return blocks, table
        blocks += 1
