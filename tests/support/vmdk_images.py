"""VMDKs that qemu-img does not write, made byte by byte as the specification says, and a way to read any of them."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.disk.blocks import RUN_LIMIT
from hyper2kvmd.disk.files import open_file
from hyper2kvmd.disk.sources.vmdk import VmdkSource, open_vmdk
from hyper2kvmd.host.mandate import ANYONE, Mandate

SECTOR = 512
HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
LARGEST = 1 << 30
"""Bytes of a disk that tests may hold as a whole."""
AT_END = (1 << 64) - 1
Grains = dict[int, bytes | None]
"""Content by number of the grain; None is a grain known to be zeros."""


@contextmanager
def vmdk_source(path: Path, mandate: Mandate = ANYONE) -> Iterator[VmdkSource]:
    file = open_file(path, mandate)
    try:
        with open_vmdk(file, mandate) as source:
            yield source
    finally:
        os.close(file.fd)


def content(path: Path) -> bytes:
    """The whole disk as `open_vmdk` gives it; what it promises of runs is checked on the way."""
    with vmdk_source(path) as source:
        return read(source)


def read(source: VmdkSource) -> bytes:
    assert source.virtual_size <= LARGEST, "too large to hold in memory"
    disk = bytearray(source.virtual_size)
    at = covered = 0
    for run in source.runs(0, source.virtual_size):
        assert at <= run.guest and 0 < run.length <= RUN_LIMIT
        at = run.guest + run.length
        assert at <= source.virtual_size
        data = source.load(run)
        assert len(data) == run.length
        disk[run.guest : at] = data
        covered += run.length
    assert covered == source.data_bytes
    return bytes(disk)


def expected(grains: Grains, size: int, grain: int) -> bytes:
    """The disk that `grains` of `grain` bytes describe."""
    disk = bytearray(size)
    for number, data in grains.items():
        if data is not None:
            disk[number * grain : number * grain + len(data)] = data
    return bytes(disk[:size])


def descriptor(create_type: str, *extents: str, cid: str = "fffffffe", parent: tuple[str, str] | None = None) -> bytes:
    """`parent` is its CID and its name."""
    lines = ["# Disk DescriptorFile", "version=1", f"CID={cid}", f"parentCID={parent[0] if parent else 'ffffffff'}"]
    lines += [f'createType="{create_type}"', *([f'parentFileNameHint="{parent[1]}"'] if parent else []), *extents, ""]
    return "\n".join(lines).encode()


@dataclass(frozen=True)
class Hosted:
    """A hosted sparse file. Sizes in sectors; the offsets that tests damage are in bytes."""

    data: bytes
    directory: int
    redundant: int
    tables: int
    first_grain: int

    def write(self, path: Path) -> Path:
        path.write_bytes(self.data)
        return path


def hosted(
    grains: Grains,
    capacity: int,
    *,
    grain: int = 128,
    per_table: int = 512,
    packed: bool = False,
    marked: bool = True,
    alone: bool = True,
    parent: tuple[str, str] | None = None,
    text: bytes | None = None,
) -> Hosted:
    """A sparse file with two sets of tables, then the grains; `alone`: with a descriptor inside, `text` if given."""
    tables = -(-capacity // (grain * per_table))
    directory_sectors, table_sectors = _sectors(tables * 4), _sectors(per_table * 4)
    kind = "streamOptimized" if packed else "monolithicSparse"
    text = text or (descriptor(kind, f'RW {capacity} SPARSE "own.vmdk"', parent=parent) if alone else b"")
    redundant = 21
    redundant_tables = redundant + directory_sectors
    directory = redundant_tables + tables * table_sectors
    first_table = directory + directory_sectors
    overhead = -(-(first_table + tables * table_sectors) // grain) * grain
    entries = [0] * (tables * per_table)
    stored = bytearray()
    for number, data in sorted(grains.items()):
        if data is None:
            entries[number] = 1
            continue
        entries[number] = overhead + len(stored) // SECTOR
        if packed:
            body = zlib.compress(data)
            stored += _padded((struct.pack("<QI", number * grain, len(body)) if marked else b"") + body)
        else:
            stored += data.ljust(grain * SECTOR, b"\0")
    flags = 0x7 | (0x10000 if packed else 0) | (0x20000 if packed and marked else 0)
    head = HEADER.pack(
        b"KDMV", 3 if packed else 1, flags, capacity, grain, 1 if alone else 0, 20 if alone else 0,
        per_table, redundant, directory, overhead, 0, b"\n \r\n", int(packed),
    )  # fmt: skip
    file = bytearray(overhead * SECTOR)
    file[: len(head)] = head
    file[SECTOR : SECTOR + len(text)] = text
    body = struct.pack(f"<{len(entries)}I", *entries)
    for start, first in ((redundant, redundant_tables), (directory, first_table)):
        pointers = struct.pack(f"<{tables}I", *(first + number * table_sectors for number in range(tables)))
        file[start * SECTOR : start * SECTOR + len(pointers)] = pointers
        for number in range(tables):
            one = body[number * per_table * 4 : (number + 1) * per_table * 4]
            at = (first + number * table_sectors) * SECTOR
            file[at : at + len(one)] = one
    return Hosted(bytes(file + stored), directory * SECTOR, redundant * SECTOR, first_table * SECTOR, overhead * SECTOR)


def stream(grains: Grains, capacity: int, *, grain: int = 128, text: bytes | None = None) -> bytes:
    """A streamOptimized file as vSphere exports it: everything in one pass, the directory known only at the end."""
    per_table = 512
    text = text or descriptor("streamOptimized", f'RW {capacity} SPARSE "own.vmdk"')

    def head(directory: int) -> bytes:
        return HEADER.pack(
            b"KDMV", 3, 0x30001, capacity, grain, 1, 20, per_table, 0, directory, 128, 0, b"\n \r\n", 1
        ).ljust(SECTOR, b"\0")

    def marker(value: int, kind: int) -> bytes:
        return struct.pack("<QII", value, 0, kind).ljust(SECTOR, b"\0")

    file = bytearray((head(AT_END) + text).ljust(128 * SECTOR, b"\0"))
    tables = []
    for first in range(0, -(-capacity // grain), per_table):
        entries = [0] * per_table
        for number in range(first, first + per_table):
            data = grains.get(number)
            if data is not None:
                entries[number - first] = len(file) // SECTOR
                body = zlib.compress(data)
                file += _padded(struct.pack("<QI", number * grain, len(body)) + body)
        if any(entries):
            file += marker(4, 1)
            tables.append(len(file) // SECTOR)
            file += struct.pack(f"<{per_table}I", *entries)
        else:
            tables.append(0)
    file += marker(_sectors(len(tables) * 4), 2)
    directory = len(file) // SECTOR
    file += _padded(struct.pack(f"<{len(tables)}I", *tables))
    return bytes(file + marker(1, 3) + head(directory) + marker(0, 0))


def cowd(grains: Grains, capacity: int, *, grain: int = 1) -> bytes:
    tables = -(-capacity // (grain * 4096))
    first_table = 4 + _sectors(tables * 4)
    first_grain = first_table + tables * 32
    entries, stored = [0] * (tables * 4096), bytearray()
    for number, data in sorted(grains.items()):
        assert data is not None
        entries[number] = first_grain + len(stored) // SECTOR
        stored += data.ljust(grain * SECTOR, b"\0")
    head = struct.pack("<4s7I", b"COWD", 1, 3, capacity, grain, 4, tables, first_grain + len(stored) // SECTOR)
    directory = struct.pack(f"<{tables}I", *(first_table + number * 32 for number in range(tables)))
    return head.ljust(4 * SECTOR, b"\0") + _padded(directory) + struct.pack(f"<{len(entries)}I", *entries) + stored


def sesparse(grains: Grains, capacity: int, *, unmapped: int | None = None, dirty: bool = False) -> bytes:
    """Grains of 4 KiB; `unmapped` is the number of one that the guest discarded."""
    tables = -(-capacity // (8 * 4096))
    directory_sectors = _sectors(tables * 8)
    first_table = 2 + directory_sectors
    first_grain = first_table + tables * 64
    entries, stored = [0] * (tables * 4096), bytearray()
    for place, (number, data) in enumerate(sorted(grains.items())):
        entries[number] = 2 << 60 if data is None else 3 << 60 | (place & 0xFFF) << 48 | place >> 12
        stored += (data or b"").ljust(4096, b"\0")
    if unmapped is not None:
        entries[unmapped] = 1 << 60
    fields = [0xCAFEBABE, 0x200000001, capacity, 8, 64, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0]
    fields += [2, directory_sectors, first_table, tables * 64, 0, 0, 0, 0, first_grain, len(stored) // SECTOR]
    head = struct.pack("<26Q", *fields).ljust(SECTOR, b"\0")
    state = struct.pack("<4Q", 0xCAFECAFE, 0, 0, int(dirty)).ljust(SECTOR, b"\0")
    directory = _padded(struct.pack(f"<{tables}Q", *(0x1000000000000000 | number for number in range(tables))))
    return head + state + directory + struct.pack(f"<{len(entries)}Q", *entries) + stored


def _sectors(length: int) -> int:
    return -(-length // SECTOR)


def _padded(data: bytes) -> bytes:
    return data.ljust(_sectors(len(data)) * SECTOR, b"\0")
