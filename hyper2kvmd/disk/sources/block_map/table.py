"""The entries of a block table, read in chunks, and the blocks that they name."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from hyper2kvmd.disk import faults
from hyper2kvmd.disk.files import SourceFile

CHUNK = 1 << 20
"""Bytes of the table that are read at once; a multiple of every entry's size."""
LARGEST_FILE = 2 * faults.LARGEST_DISK
"""Bytes of a file that blocks can lie in. It bounds the memory of `require_apart`: files can have EiB of holes."""


class Block(NamedTuple):
    """A block that is stored in the file: `length` bytes at byte `at`, with its bitmap if it has one."""

    number: int
    at: int
    length: int


class StoredPiece(NamedTuple):
    """Guest bytes `guest` to `guest + length`, stored at `offset` of the file."""

    guest: int
    length: int
    offset: int
    partial: bool = False
    """Whether some of its sectors were never written: they are zeros, whatever lies there in the file."""


class WholeBlocks:
    """A format in which all sectors of a stored block count."""

    def written(self, _guest: int, _offset: int, data: bytes) -> bytes:
        """See `BlockMap.written`."""
        return data


def entries(
    file: SourceFile, table: int, first: int, stop: int, *, code: Literal["<I", ">I", "<Q"], absent: bytes
) -> Iterator[tuple[int, int]]:
    """(number, value) of the entries from `first` to `stop` of the table at byte `table`.

    Chunks in which all bytes are `absent` are left out: thin disks of many TiB have long tables of nothing else.
    Raises MigrationFailed (`source-truncated`).
    """
    width = struct.calcsize(code)
    for at in range(first * width, stop * width, CHUNK):
        data = file.read_whole(table + at, min(CHUNK, stop * width - at))
        if data.count(absent) < len(data):
            yield from enumerate((entry for (entry,) in struct.iter_unpack(code, data)), at // width)


def within_file(file: SourceFile, blocks: Iterable[Block]) -> Iterator[Block]:
    """The same blocks, each found to be in the file, and all together no longer than the file.

    Raises MigrationFailed (`source-truncated`, `source-corrupt`).
    """
    left = file.size
    for block in blocks:
        if block.at + block.length > file.size:
            raise faults.truncated(
                file.path, f"block {block.number} of the disk lies at byte {block.at}, the file has {file.size}"
            )
        left -= block.length
        if left < 0:
            raise faults.overfull(file.path)
        yield block


def require_apart(file: SourceFile, blocks: Iterable[Block], length: int) -> None:
    """Refuse tables that name a place twice. A whole block has `length` bytes: two never begin in one such stretch.

    Raises MigrationFailed (`source-corrupt`), and as the iterator of the blocks does. It needs one bit of memory for
    each block that the file has room for.
    """
    taken = bytearray()
    for block in blocks:
        if block.at > LARGEST_FILE:
            raise faults.corrupt(file.path, f"block {block.number} of the disk lies at byte {block.at}")
        byte, bit = divmod(block.at // length, 8)
        taken.extend(bytes(max(0, byte + 1 - len(taken))))
        if taken[byte] >> bit & 1:
            raise faults.corrupt(
                file.path, f"block {block.number} of the disk lies at byte {block.at}, where another block lies"
            )
        taken[byte] |= 1 << bit
