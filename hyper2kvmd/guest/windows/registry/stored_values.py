"""Edits of a key's values: their records, their data and the list of them."""

from __future__ import annotations

import struct

from hyper2kvmd.guest.windows.registry.cells import NONE, Cells
from hyper2kvmd.guest.windows.registry.editable_cells import EditableCells
from hyper2kvmd.guest.windows.registry.names import encoded, upcase
from hyper2kvmd.guest.windows.registry.records import (
    COMPRESSED_VALUE_NAME,
    IN_PLACE,
    IN_PLACE_LIMIT,
    SEGMENT,
    SEGMENTED_SINCE,
    VALUE,
    KeyRecord,
    ValueRecord,
    has_segments,
    read_value,
    segment_list,
    segment_offsets,
    value_offsets,
)
from hyper2kvmd.guest.windows.registry.value import Value

VALUES_AT, LONGEST_NAME_AT, LARGEST_DATA_AT = 36, 60, 64
"""In the record of a key: the number of values and the offset of their list; the longest name and data."""
SIZE_AT = 4
"""In the record of a value: the size of its data, the offset of its data, and its type."""


def find_value(cells: Cells, key: KeyRecord, name: str) -> ValueRecord | None:
    wanted = upcase(name)
    records = (read_value(cells, offset) for offset in value_offsets(cells, key))
    return next((record for record in records if upcase(record.name) == wanted), None)


def add_value(cells: EditableCells, key: KeyRecord, value: Value, minor: int) -> None:
    name, compressed = encoded(value.name)
    size, data = _store(cells, value.data, minor)
    flags = COMPRESSED_VALUE_NAME if compressed and name else 0
    record = cells.allocate(VALUE.pack(b"vk", len(name), size, data, value.type, flags, 0) + name)
    _write_list(cells, key, (*value_offsets(cells, key), record))
    _note_sizes(cells, key, value)


def replace_value(cells: EditableCells, key: KeyRecord, record: ValueRecord, value: Value, minor: int) -> None:
    """The name stays as it is."""
    _free_data(cells, record)
    size, data = _store(cells, value.data, minor)
    cells.put("<III", record.offset, SIZE_AT, size, data, value.type)
    _note_sizes(cells, key, value)


def remove_value(cells: EditableCells, key: KeyRecord, record: ValueRecord) -> None:
    _write_list(cells, key, tuple(each for each in value_offsets(cells, key) if each != record.offset))
    _free_data(cells, record)
    cells.free(record.offset)


def free_values(cells: EditableCells, key: KeyRecord) -> None:
    """Free the values of a key that is deleted."""
    offsets = value_offsets(cells, key)
    for offset in offsets:
        _free_data(cells, read_value(cells, offset))
        cells.free(offset)
    if offsets:
        cells.free(key.value_list)


def _store(cells: EditableCells, data: bytes, minor: int) -> tuple[int, int]:
    """The fields for the size and the offset of data."""
    if len(data) <= IN_PLACE_LIMIT:
        return len(data) | IN_PLACE, int.from_bytes(data, "little")
    if len(data) <= SEGMENT or minor < SEGMENTED_SINCE:
        return len(data), cells.allocate(data)
    segments = [cells.allocate(data[at : at + SEGMENT]) for at in range(0, len(data), SEGMENT)]
    listed = cells.allocate(struct.pack(f"<{len(segments)}I", *segments))
    return len(data), cells.allocate(struct.pack("<2sHI", b"db", len(segments), listed))


def _free_data(cells: EditableCells, record: ValueRecord) -> None:
    if record.in_place or not record.size:
        return
    if has_segments(cells, record):
        for offset in segment_offsets(cells, record):
            cells.free(offset)
        cells.free(segment_list(cells, record))
    cells.free(record.data)


def _write_list(cells: EditableCells, key: KeyRecord, offsets: tuple[int, ...]) -> None:
    if key.values:
        cells.free(key.value_list)
    listed = cells.allocate(struct.pack(f"<{len(offsets)}I", *offsets)) if offsets else NONE
    cells.put("<II", key.offset, VALUES_AT, len(offsets), listed)


def _note_sizes(cells: EditableCells, key: KeyRecord, value: Value) -> None:
    """Callers of Windows allocate memory by the longest name and data of a key's values."""
    at = cells.at(key.offset, LARGEST_DATA_AT + 4)
    name, data = struct.unpack_from("<II", cells.data, at + LONGEST_NAME_AT)
    own_name = len(value.name.encode("utf-16-le", "surrogatepass"))
    cells.put("<II", key.offset, LONGEST_NAME_AT, max(name, own_name), max(data, len(value.data)))
