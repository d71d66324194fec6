"""The counts of keys that share a security descriptor (sk)."""

from __future__ import annotations

import struct

from hyper2kvmd.guest.windows.registry.cells import Cells
from hyper2kvmd.guest.windows.registry.editable_cells import EditableCells
from hyper2kvmd.guest.windows.registry.records import SECURITY_SIZE

NEXT_AT, PREVIOUS_AT, COUNT_AT = 4, 8, 12


def share(cells: EditableCells, offset: int) -> None:
    _, _, count = _read(cells, offset)
    cells.put("<I", offset, COUNT_AT, count + 1)


def release(cells: EditableCells, offset: int) -> None:
    """The last key's descriptor is taken out of the list of all descriptors and freed."""
    after, before, count = _read(cells, offset)
    if count > 1:
        cells.put("<I", offset, COUNT_AT, count - 1)
        return
    _read(cells, after)
    _read(cells, before)
    cells.put("<I", before, NEXT_AT, after)
    cells.put("<I", after, PREVIOUS_AT, before)
    cells.free(offset)


def _read(cells: Cells, offset: int) -> tuple[int, int, int]:
    """Next, previous, count."""
    at = cells.at(offset, SECURITY_SIZE)
    if cells.data[at : at + 2] != b"sk":
        raise cells.damaged(f"the cell at offset {offset} is no security descriptor")
    after, before, count = struct.unpack_from("<III", cells.data, at + NEXT_AT)
    return after, before, count
