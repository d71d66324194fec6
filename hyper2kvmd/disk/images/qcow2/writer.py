"""One QCOW2 file while it is written: header, L1 table, then an L2 table and data for each window with data.

A window is 512 MiB of guest space; refcount blocks follow the clusters they count, and the last of them and the
refcount table end the file. The same sequence of calls gives the same bytes, and the header is written last: the file
is not an image until `finish` returns.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from array import array
from pathlib import Path

from hyper2kvmd.disk.images.qcow2.tables import (
    CLUSTER,
    COPIED,
    L2_ENTRIES,
    REFCOUNTS,
    WINDOW,
    big_endian,
    closing,
    clusters,
    compressed_entry,
    header,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESSION_LEVEL = 3
"""Of zstd: its own default."""
WORTH_PACKING = CLUSTER - 4096
"""A cluster is stored compressed if that saves at least one block of common file systems."""
MAX_VIRTUAL_SIZE = 64 << 40
STATE = struct.Struct("<5QqQ")


def full_size(virtual_size: int, data_bytes: int | None = None) -> int:
    """Bytes of an uncompressed image file with `data_bytes` (all, by default) mapped contiguously."""
    windows = -(-virtual_size // WINDOW)
    data = clusters(virtual_size if data_bytes is None else data_bytes)
    tables = windows if data_bytes is None else min(windows, data)
    used = 1 + clusters(windows * 8) + tables + data
    blocks, table = closing(used, 0)
    return (used + blocks + table) * CLUSTER


class Qcow2Writer:
    """A QCOW2 v3 image of `virtual_size` bytes at `path`, which is created if missing. No cluster is shared.

    Guest space is placed in ascending order, in whole clusters, by one thread at a time; many may call `pack`. The
    caller writes the data itself, to `fd`, at the returned offsets. Raises ValueError for a size that such an image
    cannot have, and OSError.
    """

    unit = CLUSTER
    window = WINDOW

    def __init__(
        self, path: Path, virtual_size: int, *, compress: bool = False, level: int = COMPRESSION_LEVEL
    ) -> None:
        if not 0 < virtual_size <= MAX_VIRTUAL_SIZE or virtual_size % 512:
            raise ValueError(f"no QCOW2 image of {virtual_size} bytes")
        self.path, self.virtual_size, self.compress = path, virtual_size, compress
        self._level = level
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._threads = threading.local()
        self._l1: array[int] = array("Q", bytes(8 * -(-virtual_size // WINDOW)))
        self._l2: array[int]
        """The table of window `_window`, to be written at `_open`; -1 and 0 before the first."""
        self._window: int
        self._open: int
        self._tables: list[tuple[int, bytes]]
        """Complete, but not yet handed out."""
        self._refs: array[int]
        """Refcounts of the clusters from `_base` on; those before are in `_blocks`, already written."""
        self._blocks: array[int]
        self._base: int
        self._packed: int
        """File offset for the next compressed bytes, in a cluster for such data; 0 if there is none."""
        self._empty()

    @property
    def options(self) -> str:
        """Settings that determine the file's bytes, besides the source."""
        kind = f"zstd{self._level}" if self.compress else "plain"
        return f"qcow2 1 {self.virtual_size} {kind}"

    @property
    def full_size(self) -> int:
        """The file's length in bytes after a guest has written all of its disk: the space to reserve."""
        full = full_size(self.virtual_size)
        return full + self._end if self.compress else full

    def begin(self) -> None:
        """Start anew; discard the file's content."""
        os.ftruncate(self.fd, 0)
        self._empty()
        os.ftruncate(self.fd, self._end)

    def resume(self, state: bytes) -> None:
        """Continue from `state`.

        Raises ValueError for a state of another image, and OSError.
        """
        try:
            used, packed, base, refs, blocks, window, place = STATE.unpack_from(state)
            parts: tuple[array[int], ...] = array("Q"), array("Q"), array("H"), array("Q")
            at = STATE.size
            for part, size in zip(parts, (8 * len(self._l1), 8 * blocks, 2 * refs, CLUSTER), strict=True):
                part.frombytes(state[at : at + size])
                at += size
        except struct.error as error:
            raise ValueError("not a state of this image") from error
        if at != len(state) or base + refs != used or os.fstat(self.fd).st_size <= (used - 1) * CLUSTER:
            raise ValueError("not a state of this image")
        self._l1, self._blocks, self._refs, self._l2 = parts
        self._packed, self._base, self._window, self._open = packed, base, window, place
        self._tables = []
        os.pwrite(self.fd, bytes(CLUSTER), 0)
        os.fdatasync(self.fd)
        os.ftruncate(self.fd, self._end)

    def state(self) -> bytes:
        """The state for `resume`, valid once all data placed so far and the tables taken are written."""
        sizes = self._used, self._packed, self._base, len(self._refs), len(self._blocks), self._window, self._open
        return STATE.pack(*sizes) + b"".join(part.tobytes() for part in (self._l1, self._blocks, self._refs, self._l2))

    def place(self, guest: int, length: int) -> int:
        """The file offset for the `length` guest bytes at `guest`: whole clusters of one window."""
        count, table = clusters(length), self._table(guest)
        offset = self._take(count, 1)
        first = guest // CLUSTER % L2_ENTRIES
        table[first : first + count] = array("Q", range(offset | COPIED, offset + count * CLUSTER | COPIED, CLUSTER))
        return offset

    def place_packed(self, guest: int, size: int) -> int:
        """The file offset for the `size` bytes that `pack` made of the cluster at `guest`."""
        table, room = self._table(guest), -self._packed % CLUSTER
        if room < size:
            fresh = self._take(1, 0)
            if not room or self._packed + room != fresh:
                self._packed = fresh
        offset, self._packed = self._packed, self._packed + size
        for cluster in range(offset // CLUSTER, (offset + size - 1) // CLUSTER + 1):
            self._refs[cluster - self._base] += 1
        table[guest // CLUSTER % L2_ENTRIES] = compressed_entry(offset, size)
        return offset

    def pack(self, cluster: bytes) -> bytes | None:
        """One cluster, compressed; None if that saves too little."""
        compressor = getattr(self._threads, "compressor", None)
        if compressor is None:
            compressor = self._threads.compressor = zstd.ZstdCompressor(self._level)
        packed: bytes = compressor.compress(cluster, zstd.ZstdCompressor.FLUSH_FRAME)
        return packed if len(packed) <= WORTH_PACKING else None

    def take_tables(self) -> list[tuple[int, bytes]]:
        """(offset, bytes) of the tables that became complete since the last call, to be written."""
        taken, self._tables = self._tables, []
        return taken

    def finish(self) -> int:
        """After everything placed is written: complete the tables, flush, then write the header.

        Returns the bytes written.
        """
        self._close_table()
        written = sum(self._write(table, offset) for offset, table in self.take_tables())
        blocks, table_clusters = closing(self._used, len(self._blocks))
        first = self._take(blocks + table_clusters, 1)
        for number in range(blocks):
            counts = self._refs[number * REFCOUNTS : (number + 1) * REFCOUNTS]
            written += self._write(big_endian(counts).ljust(CLUSTER, b"\0"), first + number * CLUSTER)
        self._blocks.extend(first + number * CLUSTER for number in range(blocks))
        refcount_table = first + blocks * CLUSTER
        written += self._write(big_endian(self._blocks).ljust(table_clusters * CLUSTER, b"\0"), refcount_table)
        written += self._write(big_endian(self._l1).ljust(clusters(8 * len(self._l1)) * CLUSTER, b"\0"), CLUSTER)
        os.fdatasync(self.fd)
        head = header(self.virtual_size, len(self._l1), CLUSTER, refcount_table, table_clusters, self.compress)
        written += self._write(head.ljust(CLUSTER, b"\0"), 0)
        os.fsync(self.fd)
        return written

    def close(self) -> None:
        os.close(self.fd)

    @property
    def _used(self) -> int:
        """Clusters in the file."""
        return self._base + len(self._refs)

    @property
    def _end(self) -> int:
        return self._used * CLUSTER

    def _empty(self) -> None:
        self._l1 = array("Q", bytes(8 * len(self._l1)))
        self._refs = array("H", [1]) * (1 + clusters(8 * len(self._l1)))
        self._blocks = array("Q")
        self._l2 = array("Q", bytes(CLUSTER))
        self._tables = []
        self._window = -1
        self._base = self._packed = self._open = 0

    def _take(self, count: int, references: int) -> int:
        offset = self._end
        self._refs.extend(array("H", [references]) * count)
        return offset

    def _table(self, guest: int) -> array[int]:
        window = guest // WINDOW
        if window != self._window:
            self._close_table()
            self._l2, self._window, self._open = array("Q", bytes(CLUSTER)), window, self._take(1, 1)
            self._l1[window] = self._open | COPIED
        return self._l2

    def _close_table(self) -> None:
        """Complete the open L2 table, and the refcount blocks that are full."""
        if self._window < 0:
            return
        self._tables.append((self._open, big_endian(self._l2)))
        while len(self._refs) > REFCOUNTS:
            if self._packed < (self._base + REFCOUNTS) * CLUSTER:
                self._packed = 0
            offset = self._take(1, 1)
            self._blocks.append(offset)
            self._tables.append((offset, big_endian(self._refs[:REFCOUNTS])))
            del self._refs[:REFCOUNTS]
            self._base += REFCOUNTS

    def _write(self, data: bytes, offset: int) -> int:
        view = memoryview(data)
        while view:
            count = os.pwrite(self.fd, view, offset)
            view, offset = view[count:], offset + count
        return len(data)
