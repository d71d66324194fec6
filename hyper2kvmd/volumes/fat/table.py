"""The allocation table, which links clusters. It is kept in memory; only changed sectors are written."""

from __future__ import annotations

import struct
import sys
from array import array

from hyper2kvmd import units
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.volumes.fat.geometry import FIRST, Blocks, Geometry, damaged

FREE = 0
LAST = 0x0FFFFFFF
MASK = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}
ENDS = 7
"""Values from mask - ENDS on end a chain; the one before them marks a bad cluster."""
INFORMATION = (b"RRaA", b"rrAa")


class Table:
    """Links of one file system. `save` writes the changes since its last call."""

    def __init__(self, blocks: Blocks, geometry: Geometry) -> None:
        self._blocks, self._geometry = blocks, geometry
        self._mask = MASK[geometry.bits]
        self._changed: set[int] = set()
        raw = blocks.read(geometry.tables[0], geometry.table_bytes)
        self._links = _unpacked(raw, geometry.bits)
        self._stop = FIRST + geometry.clusters
        self.free_clusters = sum(1 for cluster in range(FIRST, self._stop) if not self._links[cluster] & self._mask)

    def chain(self, first: int, limit: int | None = None) -> list[int]:
        """Clusters of a file, in order; none for an empty file. Raises MigrationFailed (`guest-damaged`)."""
        found: list[int] = []
        cluster = first
        while cluster:
            if not self._geometry.holds(cluster):
                raise damaged(f"a file continues in cluster {cluster}, which does not exist")
            found.append(cluster)
            if len(found) > (self._geometry.clusters if limit is None else limit):
                raise damaged("a file's clusters form a loop or never end")
            cluster = self._links[cluster] & self._mask
            if cluster >= self._mask - ENDS:
                return found
            if cluster == FREE:
                raise damaged("a file's clusters end in a free cluster")
        return found

    def take(self, count: int) -> list[int]:
        """Free clusters, lowest first. They stay free until `link` makes them a chain.

        Raises MigrationFailed (`guest-full`).
        """
        found: list[int] = []
        for cluster in range(FIRST, self._stop):
            if len(found) == count:
                break
            if not self._links[cluster] & self._mask:
                found.append(cluster)
        if len(found) < count:
            raise full(len(found) * self._geometry.cluster, count * self._geometry.cluster)
        return found

    def link(self, clusters: list[int], after: int | None = None) -> None:
        """Make `clusters` a chain and save it; then append it to the chain that ends with `after` and save."""
        for cluster, following in zip(clusters, [*clusters, LAST][1:], strict=True):
            self._set(cluster, following)
        self.save()
        if after is not None and clusters:
            self._set(after, clusters[0])
            self.save()

    def release(self, clusters: list[int]) -> None:
        for cluster in clusters:
            self._set(cluster, FREE)
        self.save()

    def _set(self, cluster: int, following: int) -> None:
        before = self._links[cluster]
        self.free_clusters += (not following) - (not before & self._mask)
        self._links[cluster] = (before & ~self._mask) | (following & self._mask)
        at = cluster * self._geometry.bits // 8
        self._changed.update({at // self._geometry.sector, (at + 1) // self._geometry.sector})

    def save(self) -> None:
        if not self._changed:
            return
        geometry = self._geometry
        changed = {sector * geometry.sector: self._sector(sector) for sector in sorted(self._changed)}
        for table in geometry.tables:
            for at, data in changed.items():
                self._blocks.write(table + at, data)
        self._changed.clear()
        self._save_information()
        self._blocks.flush()

    def _sector(self, number: int) -> bytes:
        start, size = number * self._geometry.sector, self._geometry.sector
        if self._geometry.bits == 12:
            pairs = zip(self._links[::2], self._links[1::2], strict=True)
            return b"".join((low | high << 12).to_bytes(3, "little") for low, high in pairs)[start : start + size]
        width = self._links.itemsize
        links = self._links[start // width : (start + size) // width]
        if sys.byteorder == "big":
            links.byteswap()
        return links.tobytes()

    def _save_information(self) -> None:
        """FAT32's count of free clusters, which Linux relies on; the next free cluster is only a hint."""
        at = self._geometry.information
        if at is None or at + self._geometry.sector > self._geometry.tables[0]:
            return
        sector = self._blocks.read(at, 512)
        if (sector[:4], sector[484:488]) == INFORMATION:
            self._blocks.write(at, sector[:488] + struct.pack("<II", self.free_clusters, FIRST) + sector[496:])


def full(free: int, needed: int) -> MigrationFailed:
    return MigrationFailed(
        "guest-full",
        f"the guest's EFI partition is full: {units.size(free)} are free, {units.size(needed)} are needed",
        hint="Remove old kernels from it in the guest, or enlarge it, then convert again",
    )


def _unpacked(raw: bytes, bits: int) -> array[int]:
    if bits == 12:
        pairs = (int.from_bytes(raw[at : at + 3], "little") for at in range(0, len(raw) - 2, 3))
        return array("I", (number for pair in pairs for number in (pair & 0xFFF, pair >> 12)))
    links = array("I" if bits == 32 else "H", raw)
    if sys.byteorder == "big":
        links.byteswap()
    return links
