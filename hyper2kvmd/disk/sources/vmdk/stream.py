"""Compressed grains and the markers between them in streamOptimized files.

Source: VMware, Virtual Disk Format 5.0 (2011), section "Stream-Optimized Compressed Sparse Extents".
"""

from __future__ import annotations

import struct

import deflate

from hyper2kvmd.disk import faults
from hyper2kvmd.disk.files import Forward, SourceFile
from hyper2kvmd.disk.sources.vmdk.descriptor import SECTOR

MARKER = struct.Struct("<QII")
"""A value, a size and a type. With a size, it is a grain: the value is its sector, and data follows the size."""
GRAIN = struct.Struct("<QI")
END_OF_STREAM, GRAIN_TABLE, GRAIN_DIRECTORY, FOOTER = range(4)


def inflate(forward: Forward, offset: int, sector: int, grain: int, needed: int, *, marked: bool) -> bytearray:
    """The grain of the extent's sector `sector` that is stored at byte `offset`: `needed` to `grain` bytes.

    `needed` is less than `grain` where the disk ends. With `marked` a marker precedes the data and must agree.
    Raises MigrationFailed (`source-truncated`, `source-corrupt`, `disk-read-failed`).
    """
    file, expected = forward.file, GRAIN.size + grain + SECTOR
    record = forward.read(offset, expected)
    if marked:
        packed = _marked(forward, record, offset, sector, grain)
    else:
        packed = record if len(record) < expected else forward.read(offset, 2 * grain)
    try:
        data = deflate.zlib_decompress(packed, grain)
    except deflate.DeflateError as error:
        raise faults.corrupt(file.path, f"the compressed grain at byte {offset} cannot be inflated") from error
    if not needed <= len(data) <= grain:
        raise faults.corrupt(
            file.path, f"the compressed grain at byte {offset} holds {len(data)} bytes instead of {grain}"
        )
    return data


def _marked(forward: Forward, record: memoryview, offset: int, sector: int, grain: int) -> memoryview:
    file = forward.file
    if len(record) < GRAIN.size:
        raise faults.truncated(file.path, f"it ends at byte {file.size}, inside a grain's marker")
    found, size = GRAIN.unpack_from(record)
    if found != sector or not 0 < size <= 2 * grain:
        raise faults.corrupt(
            file.path, f"the marker at byte {offset} says sector {found}, {size} bytes; expected was sector {sector}"
        )
    end = GRAIN.size + size
    if end > len(record):
        record = forward.read(offset, end)
        if end > len(record):
            raise faults.truncated(
                file.path, f"the grain at byte {offset} needs {end} bytes, but it ends at byte {offset + len(record)}"
            )
    return record[GRAIN.size : end]


def find_footer(file: SourceFile, first: int, capacity: int, grain: int) -> int:
    """Byte offset of the footer of a stream whose markers begin at byte `first`; `capacity` and `grain` in sectors.

    It is the last sector but one. Otherwise the stream is followed from its start, to distinguish a truncated file from
    a corrupt one. Raises MigrationFailed (`source-truncated`, `source-corrupt`).
    """
    expected = file.size - 2 * SECTOR
    if file.size % SECTOR == 0 and expected - SECTOR >= first:
        before, after = file.read(expected - SECTOR, MARKER.size), file.read(expected + SECTOR, MARKER.size)
        if MARKER.unpack(before)[1:] == (0, FOOTER) and MARKER.unpack(after) == (0, 0, END_OF_STREAM):
            return expected
    return _walk(file, first, capacity, grain)


def _walk(file: SourceFile, at: int, capacity: int, grain: int) -> int:
    while True:
        data = file.read(at, MARKER.size)
        if len(data) < MARKER.size:
            raise faults.truncated(file.path, f"it ends at byte {file.size}, before its footer")
        value, size, kind = MARKER.unpack(data)
        if size:
            if value >= capacity or value % grain or size > 2 * grain * SECTOR:
                raise faults.corrupt(file.path, f"there is no marker at byte {at}")
            at += _sectors(GRAIN.size + size)
        elif kind == FOOTER:
            if at + 3 * SECTOR > file.size:
                raise faults.truncated(file.path, f"it ends at byte {file.size}, inside its footer")
            return at + SECTOR
        elif kind in (GRAIN_TABLE, GRAIN_DIRECTORY):
            at += SECTOR + value * SECTOR
        elif kind == END_OF_STREAM:
            raise faults.truncated(file.path, f"its stream stops at byte {at}, before its footer")
        else:
            raise faults.corrupt(file.path, f"there is no marker at byte {at}")


def _sectors(length: int) -> int:
    return -(-length // SECTOR) * SECTOR
