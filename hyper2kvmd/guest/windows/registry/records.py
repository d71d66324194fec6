"""The records in cells: keys (nk), values (vk) with their data (db), and security descriptors (sk)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hyper2kvmd.guest.windows.registry.cells import NONE, Cells
from hyper2kvmd.guest.windows.registry.names import decoded
from hyper2kvmd.guest.windows.registry.value import Value

KEY = struct.Struct("<2sHQIIIIIIIIIIIIIIIHH")
VALUE = struct.Struct("<2sHIIIHH")
COMPRESSED_KEY_NAME, COMPRESSED_VALUE_NAME = 0x20, 0x01
IN_PLACE = 0x80000000
"""In the size of a value's data: the field of the offset holds the data itself."""
IN_PLACE_LIMIT = 4
SEGMENT = 16344
"""Bytes of data in one cell; longer data has a list of segments (db) since version 1.4 of the format."""
SEGMENTED_SINCE = 4
SECURITY_SIZE = 20
"""Least bytes of a security descriptor's cell."""
LARGEST_DATA = 16 << 20
OFFSET = struct.Struct("<I")


@dataclass(frozen=True)
class KeyRecord:
    offset: int
    flags: int
    name: str
    parent: int
    subkeys: int
    """How many."""
    lists: int
    """The offset of the list of subkeys, or of the list of such lists."""
    values: int
    """How many."""
    value_list: int
    security: int
    class_name: int


@dataclass(frozen=True)
class ValueRecord:
    offset: int
    name: str
    type: int
    size: int
    """Of the data, without the mark for data in place."""
    data: int
    """The offset of the data; data of up to 4 bytes in place, as a number."""
    in_place: bool


def read_key(cells: Cells, offset: int) -> KeyRecord:
    at = cells.at(offset, KEY.size)
    fields = KEY.unpack_from(cells.data, at)
    signature, flags, name_length = fields[0], fields[1], fields[18]
    if signature != b"nk":
        raise cells.damaged(f"the cell at offset {offset} is no key")
    if KEY.size + name_length > cells.room(offset):
        raise cells.damaged(f"the name of the key at offset {offset} is longer than its cell")
    raw = bytes(cells.data[at + KEY.size : at + KEY.size + name_length])
    name = decoded(raw, compressed=bool(flags & COMPRESSED_KEY_NAME))
    _, _, _, _, parent, subkeys, _, lists, _, values, value_list, security, class_name, *_ = fields
    return KeyRecord(offset, flags, name, parent, subkeys, lists, values, value_list, security, class_name)


def value_offsets(cells: Cells, key: KeyRecord) -> tuple[int, ...]:
    if not key.values:
        return ()
    if key.values * OFFSET.size > cells.bins_size:
        raise cells.damaged(f"the key at offset {key.offset} has {key.values} values, more than the hive can hold")
    at = cells.at(key.value_list, key.values * OFFSET.size)
    return struct.unpack_from(f"<{key.values}I", cells.data, at)


def read_value(cells: Cells, offset: int) -> ValueRecord:
    at = cells.at(offset, VALUE.size)
    signature, name_length, size, data, kind, flags, _ = VALUE.unpack_from(cells.data, at)
    if signature != b"vk":
        raise cells.damaged(f"the cell at offset {offset} is no value")
    if VALUE.size + name_length > cells.room(offset):
        raise cells.damaged(f"the name of the value at offset {offset} is longer than its cell")
    raw = bytes(cells.data[at + VALUE.size : at + VALUE.size + name_length])
    name = decoded(raw, compressed=bool(flags & COMPRESSED_VALUE_NAME))
    return ValueRecord(offset, name, kind, size & ~IN_PLACE, data, bool(size & IN_PLACE))


def whole_value(cells: Cells, record: ValueRecord) -> Value:
    """The value with its data."""
    return Value(record.name, record.type, _data(cells, record))


def _data(cells: Cells, record: ValueRecord) -> bytes:
    if record.in_place:
        if record.size > IN_PLACE_LIMIT:
            raise cells.damaged(f"the value at offset {record.offset} has {record.size} bytes in place, at most 4 fit")
        return OFFSET.pack(record.data)[: record.size]
    if not record.size:
        return b""
    if record.size > LARGEST_DATA:
        raise cells.damaged(f"the value at offset {record.offset} has {record.size} bytes; at most 16 MiB are read")
    cells.work(record.size // 256)
    if not has_segments(cells, record):
        at = cells.at(record.data, record.size)
        return bytes(cells.data[at : at + record.size])
    return b"".join(_segments(cells, record))


def has_segments(cells: Cells, record: ValueRecord) -> bool:
    """Other programs than Windows write long data in one cell whatever the version is."""
    return record.size > SEGMENT and cells.room(record.data) < record.size


def _segments(cells: Cells, record: ValueRecord) -> Iterator[bytes]:
    left = record.size
    for offset in segment_offsets(cells, record):
        length = min(left, SEGMENT)
        at = cells.at(offset, length)
        yield bytes(cells.data[at : at + length])
        left -= length


def segment_offsets(cells: Cells, record: ValueRecord) -> tuple[int, ...]:
    count = -(-record.size // SEGMENT)
    listed = segment_list(cells, record)
    return struct.unpack_from(f"<{count}I", cells.data, cells.at(listed, count * OFFSET.size))


def segment_list(cells: Cells, record: ValueRecord) -> int:
    """The offset of the list of a value's segments."""
    at = cells.at(record.data, 8)
    signature, count, listed = struct.unpack_from("<2sHI", cells.data, at)
    if signature != b"db" or count != -(-record.size // SEGMENT):
        raise cells.damaged(f"the data of the value at offset {record.offset} has no list of segments")
    return int(listed)


def exists(offset: int) -> bool:
    return offset != NONE
