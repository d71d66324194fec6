"""The bins of a hive and their cells: which offsets are cells, and a limit on the work.

The cells of a bin are listed when one of them is first used. So each cell that is read is a whole one in use, and two
of them never overlap.
"""

from __future__ import annotations

import struct
from bisect import bisect_right

from hyper2kvmd.guest.windows.registry import base_block
from hyper2kvmd.guest.windows.registry.refusals import RegistryDamaged, damaged

BIN = struct.Struct("<4sII8xQI")
BIN_SIGNATURE = b"hbin"
SIZE = struct.Struct("<i")
ALIGNMENT = 8
NONE = 0xFFFFFFFF
"""The offset of a cell that there is not."""
LARGEST_HIVE = 512 << 20
LEAST_WORK = 500_000
"""Cells that may be used, besides one for each 8 bytes of the hive."""


class Cells:
    """Offsets are relative to the first bin. All methods raise RegistryDamaged for what is not a cell in use."""

    def __init__(self, hive: str, data: bytes | bytearray, bins_size: int) -> None:
        self.hive = hive
        self.data = data
        self.bins_size = bins_size
        self._starts = _bins(hive, data, bins_size)
        self._sizes: dict[int, int] = {}
        """Of cells in use, in the bins that were listed."""
        self._listed: set[int] = set()
        self._work_left = LEAST_WORK + bins_size // 8

    def damaged(self, fact: str) -> RegistryDamaged:
        return damaged(self.hive, fact)

    def at(self, offset: int, needed: int = 0) -> int:
        """Where the content of a cell begins in `data`. Raises RegistryDamaged if it has fewer bytes than needed."""
        size = self._sizes.get(offset) or self._listed_size(offset)
        self.work(1)
        if size - SIZE.size < needed:
            raise self.damaged(f"the cell at offset {offset} has {size} bytes, {needed + SIZE.size} are needed")
        return base_block.LENGTH + offset + SIZE.size

    def room(self, offset: int) -> int:
        """Bytes of a cell's content."""
        return (self._sizes.get(offset) or self._listed_size(offset)) - SIZE.size

    def work(self, cells: int) -> None:
        self._work_left -= cells
        if self._work_left < 0:
            raise self.damaged("its cells refer to each other too often to be read")

    def _listed_size(self, offset: int) -> int:
        index = bisect_right(self._starts, offset) - 1
        if index >= 0 and offset < self.bins_size and index not in self._listed:
            self._listed.add(index)
            self._list_cells(index)
        if offset not in self._sizes:
            raise self.damaged(f"there is no cell in use at offset {offset}")
        return self._sizes[offset]

    def _list_cells(self, index: int) -> None:
        """Up to the first one that cannot be one."""
        start = self._starts[index]
        end = self._starts[index + 1] if index + 1 < len(self._starts) else self.bins_size
        offset, sizes, data = start + BIN.size, self._sizes, self.data
        self.work((end - start) // 256)
        while offset < end:
            (size,) = SIZE.unpack_from(data, base_block.LENGTH + offset)
            length = abs(size)
            if length < ALIGNMENT or length % ALIGNMENT or offset + length > end:
                return
            if size < 0:
                sizes[offset] = length
            offset += length


def _bins(hive: str, data: bytes | bytearray, bins_size: int) -> list[int]:
    """The offsets of the bins, which fill the hive without gaps. Raises RegistryDamaged."""
    if bins_size > LARGEST_HIVE or not bins_size or bins_size % base_block.BIN_ALIGNMENT:
        raise damaged(hive, f"its header says that it has {bins_size} bytes of data, which is impossible")
    if base_block.LENGTH + bins_size > len(data):
        missing = base_block.LENGTH + bins_size - len(data)
        raise damaged(hive, f"it is truncated: {missing} of {base_block.LENGTH + bins_size} bytes are missing")
    starts, offset = [], 0
    while offset < bins_size:
        signature, own_offset, size, _, _ = BIN.unpack_from(data, base_block.LENGTH + offset)
        if signature != BIN_SIGNATURE or own_offset != offset:
            raise damaged(hive, f"there is no bin at offset {offset}")
        if not size or size % base_block.BIN_ALIGNMENT or offset + size > bins_size:
            raise damaged(hive, f"the bin at offset {offset} has the impossible size {size}")
        starts.append(offset)
        offset += size
    return starts
