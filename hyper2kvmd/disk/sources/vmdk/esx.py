"""Sparse extents that ESX writes for snapshots: COWD (VMFSsparse) and SEsparse.

Neither has a published specification. Sources: VMware, Virtual Disk Format 5.0 (2011), section "ESX Server Sparse
Extents", for COWD; for both, QEMU's VMDK driver, against which this module is tested.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hyper2kvmd.disk import faults
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.sources.vmdk.descriptor import SECTOR, check_size
from hyper2kvmd.disk.sources.vmdk.grains import ABSENT, ZEROED, GrainMap
from hyper2kvmd.disk.sources.vmdk.sparse import LARGEST_GRAIN, SparseExtent

COWD = struct.Struct("<4s7I")
"""Magic, version, flags, capacity, grain, directory, its entries, first free; sizes and offsets in sectors."""
COWD_MAGIC = b"COWD"
COWD_HEADER = 4 * SECTOR
COWD_ENTRIES = 4096
SE_HEADER = struct.Struct("<26Q")
SE_MAGIC, SE_VERSION, SE_VOLATILE_MAGIC = 0xCAFEBABE, 0x0000000200000001, 0xCAFECAFE
SE_VOLATILE = struct.Struct("<4Q")
SE_GRAIN, SE_TABLE = 8, 64
"""Sectors."""
MAGICS = (COWD_MAGIC, struct.pack("<Q", SE_MAGIC))


def open_cowd(file: SourceFile, start: int) -> SparseExtent:
    """The COWD extent in `file`, which begins at guest byte `start`. Raises as `sparse.open_sparse` does."""
    data = file.read(0, COWD_HEADER)
    if len(data) < COWD_HEADER or not data.startswith(COWD_MAGIC):
        raise faults.not_vmdk(file.path, "it has no COWD header")
    _, version, _, capacity, grain, directory, entries, _ = COWD.unpack_from(data)
    if version != 1:
        raise faults.not_vmdk(file.path, f"its COWD header has version {version}, known is 1")
    if not 1 <= grain <= LARGEST_GRAIN or grain & (grain - 1):
        raise faults.not_vmdk(
            file.path, f"its grains have {grain} sectors, not a power of two from 1 to {LARGEST_GRAIN}"
        )
    check_size(capacity, file.path)
    grains = GrainMap(
        file=file,
        start=start,
        stop=start + capacity * SECTOR,
        grain=grain * SECTOR,
        per_table=COWD_ENTRIES,
        directory=directory * SECTOR,
        reserved=(range(COWD_HEADER),),
    )
    if entries * grains.entry_bytes < grains.directory_bytes:
        raise faults.corrupt(file.path, f"its grain directory of {entries} entries is too short for {capacity} sectors")
    return SparseExtent(file, grains, grains.survey())


@dataclass(frozen=True, kw_only=True)
class SEsparseMap(GrainMap):
    """Tables of 64-bit entries: the top four bits are the grain's type, the others count from `tables` or `data`."""

    tables: int
    """Byte offset of the first grain table."""
    data: int
    """Sector of the first grain."""

    TYPECODE = "Q"

    def _locate(self, entry: int, at: int) -> int:
        if entry >> 32 != 0x10000000:
            raise faults.corrupt(self.file.path, f"its directory entry at byte {at} is {entry:#x}")
        return self.tables + (entry & 0xFFFFFFFF) * self.table_bytes

    def _decode(self, data: bytes, at: int) -> Sequence[int]:
        entries, step = self._entries(data), self.grain // SECTOR
        for position, entry in enumerate(entries):
            if entry >> 60 > 3 or (entry and entry >> 60 == 0):
                raise faults.corrupt(
                    self.file.path, f"its table entry at byte {at + position * self.entry_bytes} is {entry:#x}"
                )
        return [
            self.data + ((entry >> 48 & 0xFFF) | (entry & 0xFFFFFFFFFFFF) << 12) * step
            if entry >> 60 == 3
            else ZEROED
            if entry
            else ABSENT
            for entry in entries
        ]


def open_sesparse(file: SourceFile, start: int) -> SparseExtent:
    """The SEsparse extent in `file`, which begins at guest byte `start`. Raises as `sparse.open_sparse` does."""
    data = file.read(0, SECTOR)
    if len(data) < SECTOR:
        raise faults.not_vmdk(file.path, f"it ends after {file.size} bytes, inside its header")
    fields = SE_HEADER.unpack_from(data)
    magic, version, capacity, grain, table, flags = fields[:6]
    volatile, directory, directory_size, tables, grains_at = fields[10], fields[16], fields[17], fields[18], fields[24]
    if magic != SE_MAGIC:
        raise faults.not_vmdk(file.path, "it has no SEsparse header")
    if (version, grain, table, flags) != (SE_VERSION, SE_GRAIN, SE_TABLE, 0):
        raise faults.unsupported(
            file.path,
            f"is SEsparse of version {version:#x} with grains of {grain}, tables of {table} sectors, flags {flags:#x}",
            "Consolidate the snapshots in vSphere, then export the disk",
        )
    check_size(capacity, file.path)
    state = SE_VOLATILE.unpack(file.read_whole(volatile * SECTOR, SE_VOLATILE.size)) if volatile < file.size else ()
    if not state or state[0] != SE_VOLATILE_MAGIC:
        raise faults.corrupt(file.path, f"its volatile header is not at byte {volatile * SECTOR}")
    if state[3]:
        raise faults.unclean(
            file.path,
            "was not closed: its journal was never replayed",
            "Power the VM off or consolidate its snapshots in vSphere, then export the disk",
        )
    if grains_at < 2:
        raise faults.corrupt(file.path, f"its grains begin at sector {grains_at}, inside the header")
    if grains_at * SECTOR > file.size or tables * SECTOR > file.size:
        raise faults.truncated(file.path, f"it ends at byte {file.size}, before its grains")
    grains = SEsparseMap(
        file=file,
        start=start,
        stop=start + capacity * SECTOR,
        grain=grain * SECTOR,
        per_table=table * SECTOR // 8,
        directory=directory * SECTOR,
        reserved=(range(SECTOR), range(volatile * SECTOR, (volatile + 1) * SECTOR)),
        zero_entries=True,
        tables=tables * SECTOR,
        data=grains_at,
    )
    if directory_size * SECTOR < grains.directory_bytes:
        raise faults.corrupt(file.path, f"its grain directory is too short for {capacity} sectors")
    return SparseExtent(file, grains, grains.survey())
