"""Files and folders of one FAT file system by path (`EFI/BOOT/BOOTX64.EFI`, in any case)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from hyper2kvmd.volumes.fat import directory
from hyper2kvmd.volumes.fat.directory import ARCHIVE, FOLDER, DirectoryEntry
from hyper2kvmd.volumes.fat.geometry import (
    SLOT,
    Blocks,
    Geometry,
    damaged,
    read_geometry,
)
from hyper2kvmd.volumes.fat.table import Table, full

FOLDER_LIMIT = 2 << 20
"""Bytes; the limit of the specification."""
FILE_LIMIT = (4 << 30) - 1
IO_STEP = 8 << 20
TOP = DirectoryEntry("", b"", FOLDER, 0, 0, range(0))


@dataclass(frozen=True)
class _Folder:
    """A folder on the disk. `extents` are its byte ranges."""

    clusters: tuple[int, ...]
    """Empty for the fixed root folder of FAT12 and FAT16."""
    extents: tuple[tuple[int, int], ...]
    data: bytes
    entries: tuple[DirectoryEntry, ...]

    def pieces(self, start: int, data: bytes) -> Iterator[tuple[int, bytes]]:
        """`data` for byte `start` of the folder, as (disk offset, bytes)."""
        for offset, length in self.extents:
            if start < length and data:
                yield offset + start, data[: length - start]
                data, start = data[length - start :], length
            start = max(0, start - length)


class FatVolume:
    """Raises OSError for a caller's errors and MigrationFailed for the disk's: `guest-damaged`, and `guest-full`
    before anything is written.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._geometry: Geometry = read_geometry(blocks)
        self._table = Table(blocks, self._geometry)
        self._folders: dict[int, _Folder] = {}

    @property
    def free_bytes(self) -> int:
        return self._table.free_clusters * self._geometry.cluster

    # ------------------------------------------------------------ looking

    def entry(self, path: str) -> DirectoryEntry:
        """Raises OSError ENOENT and ENOTDIR."""
        found = TOP
        for part in _parts(path):
            match = self._in_folder(found, part, path)
            if match is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            found = match
        return found

    def spelling(self, path: str) -> str:
        """`path` as spelled on the disk, as far as it exists."""
        done: list[str] = []
        found: DirectoryEntry | None = TOP
        for part in _parts(path):
            found = self._in_folder(found, part, path) if found is not None and found.is_folder else None
            done.append(found.name if found is not None else part)
        return "/".join(done)

    def names(self, path: str) -> tuple[str, ...]:
        return tuple(entry.name for entry in self._folder(self.entry(path), path).entries)

    def pieces(self, path: str) -> Iterator[bytes]:
        """A file's bytes, in pieces of at most IO_STEP."""
        entry = self._file(path)
        left = entry.size
        for offset, length in self._runs(self._chain(entry)):
            for at in range(offset, offset + min(length, left), IO_STEP):
                yield self._blocks.read(at, min(IO_STEP, offset + min(length, left) - at))
            left -= min(length, left)

    def _in_folder(self, folder: DirectoryEntry, name: str, path: str) -> DirectoryEntry | None:
        entries = self._folder(folder, path).entries
        return next((entry for entry in entries if directory.same_name(entry.name, name)), None)

    def _file(self, path: str) -> DirectoryEntry:
        entry = self.entry(path)
        if entry.is_folder:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return entry

    def _chain(self, entry: DirectoryEntry) -> list[int]:
        """All clusters of a file: enough for its size, possibly more."""
        clusters = self._table.chain(entry.cluster)
        if len(clusters) * self._geometry.cluster < entry.size:
            raise damaged("a file is longer than its clusters")
        return clusters

    def _folder(self, entry: DirectoryEntry, path: str) -> _Folder:
        if not entry.is_folder:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        geometry = self._geometry
        first = entry.cluster if entry is not TOP else geometry.root_cluster
        if first == 0 and entry is not TOP:
            raise damaged("a folder has no clusters")
        known = self._folders.get(first)
        if known is not None:
            return known
        clusters = self._table.chain(first, -(-FOLDER_LIMIT // geometry.cluster))
        extents = tuple(self._runs(clusters)) if first else (geometry.root,)
        data = b"".join(self._blocks.read(offset, length) for offset, length in extents)
        folder = _Folder(tuple(clusters), extents, data, tuple(directory.entries(data)))
        self._folders[first] = folder
        return folder

    def _runs(self, clusters: list[int]) -> Iterator[tuple[int, int]]:
        """Byte ranges; adjacent ones are joined."""
        size = self._geometry.cluster
        start, length = 0, 0
        for cluster in clusters:
            offset = self._geometry.offset(cluster)
            if length and start + length == offset:
                length += size
                continue
            if length:
                yield start, length
            start, length = offset, size
        if length:
            yield start, length

    # ------------------------------------------------------------ changing

    def replace(self, path: str, data: bytes) -> None:
        """Replace or create a file with `data`."""
        _require_size(path, len(data))
        parent, name = self._parent(path)
        old = self._in_folder(parent, name, path)
        if old is not None and old.is_folder:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        released = self._table.chain(old.cluster) if old is not None else []
        if old is None:
            self._make_room(parent, name, path)
        clusters = self._table.take(-(-len(data) // self._geometry.cluster))
        self._fill(clusters, 0, data)
        self._table.link(clusters)
        first = clusters[0] if clusters else 0
        if old is None:
            self._add(parent, name, ARCHIVE, first, len(data), path)
        else:
            self._update(parent, old, first, len(data), path)
        self._table.release(released)

    def append(self, path: str, data: bytes) -> None:
        """Extend a file: it keeps its clusters, and its old size until all data is written."""
        entry = self._file(path)
        _require_size(path, entry.size + len(data))
        parent, _ = self._parent(path)
        clusters = self._chain(entry)
        missing = -(-(entry.size + len(data)) // self._geometry.cluster) - len(clusters)
        added = self._table.take(max(0, missing))
        self._fill(clusters + added, entry.size, data)
        self._table.link(added, after=clusters[-1] if clusters else None)
        self._update(parent, entry, (clusters + added)[0] if clusters + added else 0, entry.size + len(data), path)

    def unlink(self, path: str) -> None:
        entry = self._file(path)
        parent, _ = self._parent(path)
        clusters = self._table.chain(entry.cluster)
        folder = self._folder(parent, path)
        for slot in reversed(entry.slots):  # the short name first: without it there is no file
            before = folder.data[slot * SLOT : (slot + 1) * SLOT]
            self._write_slots(parent, slot, bytes([directory.DELETED]) + before[1:], path)
        self._table.release(clusters)

    def mkdir(self, path: str) -> None:
        parent, name = self._parent(path)
        if self._in_folder(parent, name, path) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._make_room(parent, name, path)
        (cluster,) = self._table.take(1)
        now = datetime.now(UTC)
        above = parent.cluster if parent is not TOP else 0
        own = directory.short_slot(b".".ljust(11), FOLDER, cluster, 0, now)
        own += directory.short_slot(b"..".ljust(11), FOLDER, above, 0, now)
        self._fill([cluster], 0, own.ljust(self._geometry.cluster, b"\0"))
        self._table.link([cluster])
        self._add(parent, name, FOLDER, cluster, 0, path)

    def sync(self) -> None:
        self._blocks.flush()

    def _parent(self, path: str) -> tuple[DirectoryEntry, str]:
        *above, name = _parts(path) or [""]
        if not directory.is_name(name):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return self.entry("/".join(above)), name

    def _fill(self, clusters: list[int], start: int, data: bytes) -> None:
        """Write `data` from byte `start` of a chain, and flush."""
        for offset, length in self._runs(clusters):
            if start < length and data:
                self._blocks.write(offset + start, data[: length - start])
                data, start = data[length - start :], length
            start = max(0, start - length)
        self._blocks.flush()

    def _make_room(self, parent: DirectoryEntry, name: str, path: str) -> None:
        """Give the folder enough free slots for a new name, whatever its length."""
        folder = self._folder(parent, path)
        if directory.free_run(folder.data, _most_slots(name)) is not None:
            return
        if not folder.clusters or len(folder.data) >= FOLDER_LIMIT:
            raise full(0, _most_slots(name) * SLOT)
        added = self._table.take(-(-_most_slots(name) * SLOT // self._geometry.cluster))
        self._fill(added, 0, bytes(len(added) * self._geometry.cluster))
        self._table.link(added, after=folder.clusters[-1])
        self._folders.clear()

    def _add(self, parent: DirectoryEntry, name: str, attributes: int, cluster: int, size: int, path: str) -> None:
        folder = self._folder(parent, path)
        shorts = {entry.short for entry in folder.entries}
        slots = directory.slots_for(name, shorts, attributes, cluster, size, datetime.now(UTC))
        index = directory.free_run(folder.data, len(slots) // SLOT)
        assert index is not None  # noqa: S101 - _make_room ensures it
        end = index * SLOT + len(slots)
        if directory.END in folder.data[:end:SLOT] and end < len(folder.data):
            self._write_slots(parent, end // SLOT, bytes(SLOT), path)  # the end mark moves first
        for at in range(0, len(slots), SLOT):
            self._write_slots(parent, index + at // SLOT, slots[at : at + SLOT], path)

    def _update(self, parent: DirectoryEntry, entry: DirectoryEntry, cluster: int, size: int, path: str) -> None:
        slot = entry.slots[-1]
        before = self._folder(parent, path).data[slot * SLOT : (slot + 1) * SLOT]
        self._write_slots(parent, slot, directory.updated(before, cluster, size, datetime.now(UTC)), path)

    def _write_slots(self, parent: DirectoryEntry, slot: int, data: bytes, path: str) -> None:
        for offset, piece in self._folder(parent, path).pieces(slot * SLOT, data):
            self._blocks.write(offset, piece)
        self._blocks.flush()
        self._folders.clear()


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _most_slots(name: str) -> int:
    return 1 + -(-len(name.encode("utf-16-le")) // (2 * directory.PART))


def _require_size(path: str, size: int) -> None:
    if size > FILE_LIMIT:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
