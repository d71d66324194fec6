"""The bytes that a guest reads from a QCOW2, for the content comparison.

Images must have no backing file, external data file, snapshots or encryption. Every offset is checked against the file
before use; several threads may read at once.
Source: QEMU, docs/interop/qcow2.txt.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import threading
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host.files import data_ranges

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
FEATURES = struct.Struct(">QQQII")
MAGIC = b"QFI\xfb"
COMPRESSION_FEATURE = 1 << 3
OFFSET_MASK = ((1 << 56) - 1) & ~0x1FF
COMPRESSED = 1 << 62
READS_AS_ZERO = 1
L1_LIMIT = 32 << 20
"""Bytes of the L1 table; QEMU's limit."""
TABLES_KEPT = 16
ZLIB_WINDOW = -12
ZSTD = 1
"""The compression type; otherwise it is deflate."""


class Qcow2Image:
    """One QCOW2, open for reading. Raises MigrationFailed (`image-damaged`) for violations of the format."""

    def __init__(self, file: int, name: str) -> None:
        self._file, self._name = file, name
        self._file_bytes = os.fstat(file).st_size
        self._tables: OrderedDict[int, array[int]] = OrderedDict()
        self._lock = threading.Lock()
        self._read_header()

    @property
    def virtual_size(self) -> int:
        return self._virtual_size

    def allocated(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Guest ranges (start, stop) in [start, stop) that may contain anything but zeros, in order."""
        for guest, length, entry in self._extents(start, stop):
            if entry is None:
                continue
            if entry & COMPRESSED:
                yield guest, guest + length
                continue
            for begin, end in data_ranges(self._file, entry, min(entry + length, self._file_bytes)):
                yield guest + begin - entry, guest + end - entry

    def read(self, start: int, length: int) -> bytes:
        """`length` bytes from guest offset `start`, all inside the disk."""
        pieces = []
        for guest, size, entry in self._extents(start, start + length):
            if entry is None:
                pieces.append(bytes(size))
            elif entry & COMPRESSED:
                inside = guest % self._cluster
                pieces.append(self._inflated(entry)[inside : inside + size])
            else:
                found = os.pread(self._file, size, entry)
                # the last cluster of a file may be cut at the end of the disk; QEMU reads zeros there
                pieces.append(found if len(found) == size else found + bytes(size - len(found)))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _extents(self, start: int, stop: int) -> Iterator[tuple[int, int, int | None]]:
        """(guest offset, length, where) without gaps.

        `where` is the file offset of plain data, the entry of a compressed cluster, or None for zeros. Adjacent
        clusters are joined, except compressed ones.
        """
        begin, length, where = start, 0, None
        for guest, size, entry in self._clusters(start, stop):
            joins = (
                entry is None
                if where is None
                else entry is not None and not (where | entry) & COMPRESSED and entry == where + length
            )
            if length and joins:
                length += size
                continue
            if length:
                yield begin, length, where
            begin, length, where = guest, size, entry
        if length:
            yield begin, length, where

    def _clusters(self, start: int, stop: int) -> Iterator[tuple[int, int, int | None]]:
        """As `_extents`, cluster by cluster; the whole span of a missing L2 table is one item."""
        cluster, span = self._cluster, self._cluster * self._entries
        guest = start
        while guest < stop:
            table = self._table(guest // span)
            if table is None:
                end = min(stop, guest - guest % span + span)
                yield guest, end - guest, None
                guest = end
                continue
            table_stop = min(stop, guest - guest % span + span)
            while guest < table_stop:
                inside = guest % cluster
                size = min(cluster - inside, table_stop - guest)
                entry = table[guest % span // cluster]
                if entry & COMPRESSED:
                    yield guest, size, entry
                elif entry & READS_AS_ZERO or not entry & OFFSET_MASK:
                    yield guest, size, None
                else:
                    yield guest, size, self._data_offset(entry) + inside
                guest += size

    def _data_offset(self, entry: int) -> int:
        offset = entry & OFFSET_MASK
        if offset % self._cluster or offset >= self._file_bytes:
            raise self._damaged(f"a cluster lies at {offset}, which is not a cluster of the file")
        return offset

    def _table(self, number: int) -> array[int] | None:
        """The L2 table of that number, or None if its whole span reads as zeros."""
        entry = self._l1[number]
        offset = entry & OFFSET_MASK
        if not offset:
            return None
        with self._lock:
            known = self._tables.get(number)
            if known is not None:
                self._tables.move_to_end(number)
                return known
        if offset % self._cluster:
            raise self._damaged(f"an L2 table lies at {offset}, which is not a cluster of the file")
        table = self._words(offset, self._cluster)
        with self._lock:
            self._tables[number] = table
            while len(self._tables) > TABLES_KEPT:
                self._tables.popitem(last=False)
        return table

    def _inflated(self, entry: int) -> bytes:
        """One compressed cluster, inflated."""
        sector_shift = 62 - (self._cluster_bits - 8)
        offset = entry & ((1 << sector_shift) - 1)
        sectors = (entry >> sector_shift) & ((1 << (self._cluster_bits - 8)) - 1)
        if offset >= self._file_bytes:
            raise self._damaged(f"a compressed cluster is at {offset}, beyond the end of the file")
        packed = os.pread(self._file, (sectors + 1) * 512 - offset % 512, offset)
        inflater = zstd.ZstdDecompressor() if self._zstd else zlib.decompressobj(ZLIB_WINDOW)
        try:
            data = inflater.decompress(packed, self._cluster)
        except (zlib.error, zstd.ZstdError) as error:
            raise self._damaged(f"the compressed cluster at {offset} is corrupt: {error}") from error
        if len(data) != self._cluster:
            raise self._damaged(f"the compressed cluster at {offset} holds {len(data)} bytes")
        return bytes(data)

    def _read_header(self) -> None:
        start = os.pread(self._file, 1024, 0)
        if len(start) < HEADER.size or not start.startswith(MAGIC):
            raise self._damaged("it has no QCOW2 header")
        (_, version, backing, _, bits, size, encryption, l1_entries, l1_offset, _, _, snapshots, _) = (
            HEADER.unpack_from(start)
        )
        if version not in (2, 3) or not 9 <= bits <= 21:
            raise self._damaged(f"it has version {version} and clusters of 2^{bits} bytes")
        incompatible, compression = 0, 0
        if version == 3:
            if len(start) < HEADER.size + FEATURES.size:
                raise self._damaged("it ends inside its header")
            incompatible, _, _, _, header_bytes = FEATURES.unpack_from(start, HEADER.size)
            compression = start[104] if header_bytes > 104 and len(start) > 104 else 0
        if backing or encryption or snapshots or compression not in (0, ZSTD) or incompatible & ~COMPRESSION_FEATURE:
            raise self._damaged("it uses features that no image of ours has: backing file, encryption or their like")
        self._zstd = compression == ZSTD
        self._cluster_bits, self._cluster, self._entries = bits, 1 << bits, 1 << (bits - 3)
        self._virtual_size: int = size
        needed = -(-size // (self._cluster * self._entries))
        if l1_entries < needed or needed * 8 > L1_LIMIT or l1_offset % self._cluster:
            raise self._damaged(f"its L1 table has {l1_entries} entries at {l1_offset}; {needed} are needed")
        self._l1 = self._words(l1_offset, needed * 8)

    def _words(self, offset: int, length: int) -> array[int]:
        if offset + length > self._file_bytes:
            raise self._damaged(f"the table at {offset} extends beyond the end of the file")
        words = array("Q", os.pread(self._file, length, offset))
        if sys.byteorder == "little":
            words.byteswap()
        return words

    def _damaged(self, fact: str) -> MigrationFailed:
        return MigrationFailed(
            "image-damaged",
            f"the image {self._name} is damaged: {fact}",
            hint="Check the storage of the conversion directory for errors: the next attempt converts again",
            kind=Kind.RETRY,
        )


class RawImage:
    """A raw image, open for reading."""

    def __init__(self, file: int) -> None:
        self._file = file
        self.virtual_size = os.fstat(file).st_size

    def allocated(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Guest ranges (start, stop) in [start, stop) that may contain anything but zeros, in order."""
        return data_ranges(self._file, start, min(stop, self.virtual_size))

    def read(self, start: int, length: int) -> bytes:
        """`length` bytes from guest offset `start`, all inside the disk."""
        return os.pread(self._file, length, start)


@contextlib.contextmanager
def open_image(path: Path, fmt: str) -> Iterator[Qcow2Image | RawImage]:
    """An image of `fmt` qcow2 or raw. Raises MigrationFailed (`image-damaged`)."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield Qcow2Image(file, path.name) if fmt == "qcow2" else RawImage(file)
    finally:
        os.close(file)
