"""The positions of the parts of a FAT file system, from its boot sector. Offsets and lengths are bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal, Protocol

from hyper2kvmd.errors import MigrationFailed

BOOT = struct.Struct("<11xHBHBHHBHHHII")
BOOT_32 = struct.Struct("<IHHIHH")
SLOT = 32
TABLE_LIMIT = 64 << 20
MIRRORING_OFF = 0x80
NOWHERE = (0, 0xFFFF)
"""Values of the sector number when a FAT32 has no information sector."""
FIRST = 2
"""The number of the first cluster."""


class Blocks(Protocol):
    """The bytes of one volume. `read` and `write` raise MigrationFailed for a range outside it."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...

    def write(self, offset: int, data: bytes) -> None: ...

    def flush(self) -> None:
        """Return when all earlier writes are on the disk; they precede all later writes."""
        ...


@dataclass(frozen=True)
class Geometry:
    bits: Literal[12, 16, 32]
    sector: int
    cluster: int
    clusters: int
    """The count; cluster numbers begin with FIRST."""
    tables: tuple[int, ...]
    """Offsets of the copies to keep equal; the first one is read."""
    table_bytes: int
    root: tuple[int, int]
    """Offset and length of the root folder; FAT32 stores it in clusters like any other."""
    root_cluster: int
    data: int
    """Offset of the first cluster."""
    information: int | None
    """Offset of the FAT32 sector with the number of free clusters."""

    def offset(self, cluster: int) -> int:
        return self.data + (cluster - FIRST) * self.cluster

    def holds(self, cluster: int) -> bool:
        return FIRST <= cluster < FIRST + self.clusters


def read_geometry(blocks: Blocks) -> Geometry:
    """Raises MigrationFailed (`guest-damaged`)."""
    if blocks.size < 512:
        raise damaged("it is smaller than a boot sector")
    boot = blocks.read(0, 512)
    sector, per_cluster, reserved, copies, root_slots, small, _, short, _, _, _, large = BOOT.unpack_from(boot)
    if boot[510:512] != b"\x55\xaa" or sector not in (512, 1024, 2048, 4096):
        raise damaged("its boot sector is invalid")
    if not per_cluster or per_cluster & (per_cluster - 1) or not reserved or copies not in (1, 2):
        raise damaged("its boot sector contradicts itself")
    long, flags, _, root_cluster, information, _ = BOOT_32.unpack_from(boot, 36)
    table_sectors = short or long
    table_bytes = table_sectors * sector
    if not 0 < table_bytes <= TABLE_LIMIT:
        raise damaged(f"its allocation table has {table_bytes} bytes")
    root_bytes = -(-root_slots * SLOT // sector) * sector
    root_at = (reserved + copies * table_sectors) * sector
    data = root_at + root_bytes
    end = min((small or large) * sector, blocks.size)
    clusters = (end - data) // (per_cluster * sector)
    if clusters < 1:
        raise damaged("its boot sector leaves no room for files")
    bits: Literal[12, 16, 32] = 32 if not short else 16 if clusters >= 4085 else 12
    clusters = min(clusters, table_bytes * 8 // bits - FIRST)
    tables = tuple((reserved + copy * table_sectors) * sector for copy in range(copies))
    if bits == 32 and flags & MIRRORING_OFF:
        tables = tables[flags & 0xF :][:1]
    found = Geometry(
        bits=bits,
        sector=sector,
        cluster=per_cluster * sector,
        clusters=clusters,
        tables=tables,
        table_bytes=table_bytes,
        root=(root_at, root_bytes),
        root_cluster=root_cluster if bits == 32 else 0,
        data=data,
        information=information * sector if bits == 32 and information not in NOWHERE else None,
    )
    contradictory = found.holds(found.root_cluster) == bool(root_slots)
    if not tables or clusters < 1 or contradictory:
        raise damaged("its boot sector contradicts itself")
    return found


def damaged(fact: str) -> MigrationFailed:
    return MigrationFailed(
        "guest-damaged",
        f"a FAT file system of the guest is damaged: {fact}",
        hint="Check the EFI partition in the guest (fsck.vfat), shut the guest down cleanly, then export it again",
    )
