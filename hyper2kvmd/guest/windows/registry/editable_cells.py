"""Cells of a hive that is edited: allocation in cells that were freed and in new bins at the end."""

from __future__ import annotations

import struct

from hyper2kvmd.guest.windows.registry import base_block
from hyper2kvmd.guest.windows.registry.cells import ALIGNMENT, BIN, BIN_SIGNATURE, LARGEST_HIVE, SIZE, Cells
from hyper2kvmd.guest.windows.registry.refusals import invalid_edit


class EditableCells(Cells):
    """A copy of the cells of a hive."""

    def __init__(self, cells: Cells) -> None:
        self.buffer = bytearray(cells.data)
        super().__init__(cells.hive, self.buffer, cells.bins_size)
        self._free: list[tuple[int, int]] = []
        """Offsets and sizes of cells that were freed or left over here."""

    def allocate(self, content: bytes) -> int:
        """The offset of a new cell with this content, in a cell that was freed or in a new bin."""
        size = (len(content) + SIZE.size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        place = next((index for index, (_, room) in enumerate(self._free) if room >= size), None)
        if place is None:
            place = self._new_bin(size)
        offset, room = self._free.pop(place)
        if room > size:
            self._free.append((offset + size, room - size))
            self._write_size(offset + size, room - size)
        self._write_size(offset, -size)
        self._sizes[offset] = size
        at = base_block.LENGTH + offset + SIZE.size
        self.buffer[at : at + size - SIZE.size] = content.ljust(size - SIZE.size, b"\0")
        return offset

    def free(self, offset: int) -> None:
        size = self._sizes.get(offset) or self._listed_size(offset)
        self._write_size(offset, size)
        del self._sizes[offset]
        self._free.append((offset, size))

    def put(self, fmt: str, offset: int, place: int, *numbers: int) -> None:
        """Write numbers at a place in the content of a cell."""
        at = self.at(offset, place + struct.calcsize(fmt))
        struct.pack_into(fmt, self.buffer, at + place, *numbers)

    def _new_bin(self, size: int) -> int:
        """Appends a bin with a free cell of at least this size; returns the index of that cell."""
        start = self.bins_size
        length = -(-(size + BIN.size) // base_block.BIN_ALIGNMENT) * base_block.BIN_ALIGNMENT
        if start + length > LARGEST_HIVE:
            raise invalid_edit(self.hive, f"it would be larger than {LARGEST_HIVE >> 20} MiB")
        content = BIN.pack(BIN_SIGNATURE, start, length, 0, 0).ljust(length, b"\0")
        at = base_block.LENGTH + start
        self.buffer[at : at + length] = content
        self.bins_size = start + length
        self._listed.add(len(self._starts))
        self._starts.append(start)
        self._write_size(start + BIN.size, length - BIN.size)
        self._free.append((start + BIN.size, length - BIN.size))
        return len(self._free) - 1

    def _write_size(self, offset: int, size: int) -> None:
        SIZE.pack_into(self.buffer, base_block.LENGTH + offset, size)
