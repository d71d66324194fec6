"""Reads the MFT, folders and the starts of files of an NTFS volume: what shows its state before anything opens it.

Every number on the disk is checked before use. Source: the Linux-NTFS project's documentation, and Windows Internals,
7th edition, part 2, chapter 11.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.volumes.superblock import BlockReader

MAGIC = b"NTFS    "
MFT, ROOT = 0, 5
ATTRIBUTE_LIST, DATA, INDEX_ROOT, INDEX_ALLOCATION, BITMAP = 0x20, 0x80, 0x90, 0xA0, 0xB0
END = 0xFFFFFFFF
INDEX_NAME = "$I30"
IN_USE, IS_FOLDER = 0x1, 0x2
LAST_ENTRY = 0x2
SECTOR = 512
REFERENCE_BITS = (1 << 48) - 1
RUNS_LIMIT, RECORDS_LIMIT, ATTRIBUTES_LIMIT = 50_000, 512, 4096
INDEX_LIMIT = 64 << 20
LIST_LIMIT = 1 << 20
PIECE = 1 << 20


@dataclass(frozen=True)
class ClusterRun:
    """Clusters of an attribute from its cluster `first`; `place` is None for a hole."""

    first: int
    count: int
    place: int | None


@dataclass(frozen=True)
class Stored:
    """One attribute of one record: a value, or extents."""

    kind: int
    name: str
    lowest: int
    size: int
    value: bytes | None
    extents: tuple[ClusterRun, ...] = ()


@dataclass(frozen=True)
class FileRecord:
    is_folder: bool
    attributes: tuple[Stored, ...]


class NtfsRecords:
    """Raises MigrationFailed: `ntfs-damaged`, and as `reader` does."""

    def __init__(self, reader: BlockReader) -> None:
        self._reader = reader
        boot = reader.read(0, SECTOR) if reader.size >= SECTOR else b""
        if boot[3:11] != MAGIC:
            raise damaged("it has no boot sector of NTFS")
        sector, clusters = struct.unpack_from("<HB", boot, 11)
        self._cluster = sector * _power(clusters)
        first, _, record_clusters = struct.unpack_from("<QQb", boot, 48)
        self._record = _bytes(record_clusters, self._cluster)
        if sector not in (512, 1024, 2048, 4096) or not 512 <= self._cluster <= 2 << 20 or first > reader.size:
            raise damaged("its boot sector is not valid")
        # the first records of the MFT say where the others are
        self._mft = Stored(DATA, "", 0, self._record, None, (ClusterRun(0, -(-self._record // self._cluster), first),))
        self._mft = self._whole(self._record_at(MFT), DATA)

    # ------------------------------------------------------------ files

    def folders_with(self, path: str, most: int) -> Iterator[str]:
        """Upper-case names of the folders at the top, of the first `most` names there, that have this file."""
        for name, number in islice(dict(self._names(ROOT)).items(), most):
            try:
                if number != ROOT and self.find(path, number) is not None:
                    yield name
            except MigrationFailed as failure:
                if failure.code != "ntfs-damaged":
                    raise

    def find(self, path: str, number: int = ROOT) -> int | None:
        """The record of a file by its path below a folder, in any case; None if there is none."""
        for part in path.split("/"):
            names = dict(self._names(number))
            if part.upper() not in names:
                return None
            number = names[part.upper()]
        return number

    def head(self, number: int, length: int) -> bytes:
        """The first bytes of a file."""
        data = self._whole(self._record_at(number), DATA)
        return self._read(data, 0, min(length, data.size))

    def value(self, number: int, kind: int) -> bytes:
        """A small attribute."""
        stored = self._whole(self._record_at(number), kind)
        return self._read(stored, 0, min(stored.size, PIECE))

    def _names(self, number: int) -> Iterator[tuple[str, int]]:
        """Upper-case names of a folder, with their records."""
        record = self._record_at(number)
        if not record.is_folder:
            return
        root = self._whole(record, INDEX_ROOT, INDEX_NAME)
        value = self._read(root, 0, min(root.size, PIECE))
        if len(value) < 32:
            raise damaged("the index of a folder is too short")
        yield from _entries(value, 16)
        if any(one.kind == INDEX_ALLOCATION and one.name == INDEX_NAME for one in record.attributes):
            size = int.from_bytes(value[8:12], "little")
            yield from self._index_blocks(record, size)

    def _index_blocks(self, record: FileRecord, size: int) -> Iterator[tuple[str, int]]:
        blocks = self._whole(record, INDEX_ALLOCATION, INDEX_NAME)
        used = self._whole(record, BITMAP, INDEX_NAME)
        bits = self._read(used, 0, min(used.size, PIECE))
        if not SECTOR <= size <= 64 << 10 or size & (size - 1) or blocks.size > INDEX_LIMIT:
            raise damaged("the index of a folder has an impossible size")
        for number in range(blocks.size // size):
            if number // 8 < len(bits) and bits[number // 8] >> number % 8 & 1:
                block = _restored(self._read(blocks, number * size, size), b"INDX")
                yield from _entries(block, 24)

    # ------------------------------------------------------------ records

    def _record_at(self, number: int) -> FileRecord:
        if (number + 1) * self._record > self._mft.size:
            raise damaged(f"it has no file {number}")
        base = self._parsed(number)
        extra: list[Stored] = []
        for one in base.attributes:
            if one.kind == ATTRIBUTE_LIST:
                content = self._read(one, 0, min(one.size, LIST_LIMIT))
                for other in _listed(content, number):
                    if (other + 1) * self._record <= self._mft.size:
                        extra += self._parsed(other).attributes
                        if number == MFT:
                            self._mft = _joined([*base.attributes, *extra], DATA, "")
        return FileRecord(base.is_folder, (*base.attributes, *extra))

    def _parsed(self, number: int) -> FileRecord:
        raw = _restored(self._read(self._mft, number * self._record, self._record), b"FILE")
        at, flags, used = struct.unpack_from("<HHI", raw, 20)
        if not flags & IN_USE:
            raise damaged(f"file {number} was deleted")
        return FileRecord(bool(flags & IS_FOLDER), tuple(_attributes(raw[:used], at)))

    def _whole(self, record: FileRecord, kind: int, name: str = "") -> Stored:
        return _joined(record.attributes, kind, name)

    def _read(self, stored: Stored, offset: int, length: int) -> bytes:
        if stored.value is not None:
            return stored.value[offset : offset + length]
        parts, end = [], offset + length
        begin = bisect_right(stored.extents, offset // self._cluster, key=lambda extent: extent.first)
        for extent in stored.extents[max(0, begin - 1) :]:
            if extent.first * self._cluster >= end:
                break
            first, last = extent.first * self._cluster, (extent.first + extent.count) * self._cluster
            start, stop = max(offset, first), min(end, last)
            if start < stop and extent.place is None:
                parts.append(bytes(stop - start))
            elif start < stop and extent.place is not None:
                place = extent.place * self._cluster + start - first
                if place + stop - start > self._reader.size:
                    raise damaged("a file lies beyond its end")
                parts.append(self._reader.read(place, stop - start))
        data = b"".join(parts)
        if len(data) != length:
            raise damaged("a part of a file is missing")
        return data


def damaged(fact: str) -> MigrationFailed:
    return MigrationFailed(
        "ntfs-damaged",
        f"an NTFS file system of the guest is damaged: {fact}",
        hint="Run chkdsk /f on it in the guest, shut the guest down with `shutdown /s /t 0`, then export it again",
    )


def _power(clusters: int) -> int:
    return clusters if clusters <= 0x80 else 1 << min(256 - clusters, 20)


def _bytes(clusters: int, cluster: int) -> int:
    size = clusters * cluster if clusters > 0 else 1 << min(-clusters, 20)
    if size not in (512, 1024, 2048, 4096):
        raise damaged("its files have records of an impossible size")
    return size


def _restored(raw: bytes, magic: bytes) -> bytes:
    """A record with the last bytes of its sectors, which are in its update sequence array."""
    at, count = struct.unpack_from("<HH", raw, 4)
    if raw[:4] != magic or count != len(raw) // SECTOR + 1 or at + 2 * count > len(raw):
        raise damaged(f"a record {magic.decode()} is not valid")
    data = bytearray(raw)
    for number in range(1, count):
        end = number * SECTOR
        if raw[end - 2 : end] != raw[at : at + 2]:
            raise damaged(f"a record {magic.decode()} was not written completely")
        data[end - 2 : end] = raw[at + 2 * number : at + 2 * number + 2]
    return bytes(data)


def _attributes(raw: bytes, at: int) -> Iterator[Stored]:
    for _ in range(ATTRIBUTES_LIMIT):
        if at + 16 > len(raw) or int.from_bytes(raw[at : at + 4], "little") == END:
            return
        kind, length, is_long, letters, name_at = struct.unpack_from("<IIBBH", raw, at)
        one = raw[at : at + length]
        if length < 24 or len(one) != length or name_at + 2 * letters > length:
            raise damaged("an attribute of a file is not valid")
        name = one[name_at : name_at + 2 * letters].decode("utf-16-le", "replace")
        yield _long(kind, name, one) if is_long else _short(kind, name, one)
        at += length


def _short(kind: int, name: str, one: bytes) -> Stored:
    size, at = struct.unpack_from("<IH", one, 16)
    if at + size > len(one):
        raise damaged("an attribute of a file is not valid")
    return Stored(kind, name, 0, size, one[at : at + size])


def _long(kind: int, name: str, one: bytes) -> Stored:
    if len(one) < 64:
        raise damaged("an attribute of a file is not valid")
    lowest, _, runs_at = struct.unpack_from("<QQH", one, 16)
    (size,) = struct.unpack_from("<Q", one, 48)
    return Stored(kind, name, lowest, size, None, tuple(_extents(one, runs_at, lowest)))


def _extents(one: bytes, at: int, first: int) -> Iterator[ClusterRun]:
    place = 0
    for _ in range(RUNS_LIMIT):
        if at >= len(one) or not one[at]:
            return
        counted, placed = one[at] & 15, one[at] >> 4
        if not 0 < counted <= 8 or placed > 8 or at + 1 + counted + placed > len(one):
            raise damaged("the places of a file are not valid")
        count = int.from_bytes(one[at + 1 : at + 1 + counted], "little")
        place += int.from_bytes(one[at + 1 + counted : at + 1 + counted + placed], "little", signed=True)
        if place < 0 or not 0 < count < 1 << 48:
            raise damaged("the places of a file are not valid")
        yield ClusterRun(first, count, place if placed else None)
        first += count
        at += 1 + counted + placed


def _joined(attributes: tuple[Stored, ...] | list[Stored], kind: int, name: str) -> Stored:
    """All parts of an attribute, which are in several records if it has many extents."""
    parts = sorted((one for one in attributes if (one.kind, one.name) == (kind, name)), key=lambda one: one.lowest)
    if not parts or parts[0].lowest or len(parts) > RECORDS_LIMIT:
        raise damaged("an attribute of a file is missing")
    extents = tuple(extent for part in parts for extent in part.extents)
    ends = accumulate(extent.count for extent in extents)
    if len(extents) > RUNS_LIMIT or any(extent.first != end for extent, end in zip(extents[1:], ends, strict=False)):
        raise damaged("the places of a file are not valid")
    return Stored(kind, name, 0, parts[0].size, parts[0].value, extents)


def _listed(content: bytes, base: int) -> list[int]:
    """Records, other than `base`, that an attribute list names."""
    found: dict[int, None] = {}
    at = 0
    while at + 24 <= len(content):
        (length,) = struct.unpack_from("<H", content, at + 4)
        (reference,) = struct.unpack_from("<Q", content, at + 16)
        if length < 24:
            raise damaged("the attributes of a file are not valid")
        if reference & REFERENCE_BITS != base:
            found[reference & REFERENCE_BITS] = None
        at += length
    if len(found) > RECORDS_LIMIT:
        raise damaged("a file has too many records")
    return list(found)


def _entries(block: bytes, header: int) -> Iterator[tuple[str, int]]:
    at, end = (header + number for number in struct.unpack_from("<II", block, header))
    while at + 16 <= min(end, len(block)):
        reference, length, key, flags = struct.unpack_from("<QHHH", block, at)
        if flags & LAST_ENTRY:
            return
        if length < 16 or at + length > len(block) or key + 16 > length:
            raise damaged("the index of a folder is not valid")
        if key >= 66:
            letters = block[at + 16 + 64]
            name = block[at + 16 + 66 : at + 16 + 66 + 2 * letters].decode("utf-16-le", "replace")
            yield name.upper(), reference & REFERENCE_BITS
        at += length
