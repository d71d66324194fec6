"""The first block of a hive or a transaction log: sequence numbers, sizes and a checksum."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import reduce
from operator import xor

LENGTH = 4096
"""Bytes before the bins of a hive."""
SECTOR = 512
"""The part that has a checksum, and all of it that a log has."""
SIGNATURE = b"regf"
PRIMARY, OLD_LOG, VERY_OLD_LOG, LOG = 0, 1, 2, 6
"""Types of files."""
MINOR_VERSIONS = (3, 4, 5, 6)
FIELDS = struct.Struct("<4sIIQIIIIIII")
SEQUENCES_AT, TYPE_AT, SIZE_AT, FLAGS_AT, CHECKSUM_AT = 4, 28, 40, 144, 508
BIN_ALIGNMENT = 4096


@dataclass(frozen=True)
class BaseBlock:
    primary_sequence: int
    """Counts writes that began; `secondary_sequence` those that ended."""
    secondary_sequence: int
    written: int
    """When, in units of 100 ns since 1601."""
    major: int
    minor: int
    file_type: int
    root: int
    bins_size: int
    valid: bool
    """Whether the checksum is right."""

    @property
    def complete(self) -> bool:
        return self.valid and self.primary_sequence == self.secondary_sequence


def read_base_block(data: bytes | bytearray) -> BaseBlock | None:
    """None if there is none."""
    if len(data) < SECTOR or data[:4] != SIGNATURE:
        return None
    return parsed(data)


def parsed(data: bytes | bytearray) -> BaseBlock:
    """Of what has a signature."""
    _, first, second, written, major, minor, file_type, _, root, size, _ = FIELDS.unpack_from(data)
    return BaseBlock(
        first, second, written, major, minor, file_type, root, size, checksum(data) == _number(data, CHECKSUM_AT)
    )


def checksum(data: bytes | bytearray) -> int:
    """0 and 2^32-1 are not used."""
    total: int = reduce(xor, struct.unpack_from("<127I", data))
    return {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(total, total)


def write_clean(data: bytearray, sequence: int, bins_size: int, flags: int | None = None) -> None:
    """Make a complete base block of a primary file; `flags` are kept if None."""
    struct.pack_into("<II", data, SEQUENCES_AT, sequence, sequence)
    struct.pack_into("<I", data, TYPE_AT, PRIMARY)
    struct.pack_into("<I", data, SIZE_AT, bins_size)
    if flags is not None:
        kept = _number(data, FLAGS_AT) & ~1
        struct.pack_into("<I", data, FLAGS_AT, kept | flags & 1)
    struct.pack_into("<I", data, CHECKSUM_AT, checksum(data))


def _number(data: bytes | bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
