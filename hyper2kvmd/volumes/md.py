"""Linux software RAID: superblocks read without privilege, and complete, clean RAID 1 arrays.

Writes that leave the superblocks unchanged are safe only if all members are present, identical and cleanly stopped:
each then gets the same bytes. Every other array is refused with its reason.

Source: linux include/uapi/linux/raid/md_p.h, drivers/md/md.c (super_90_load, super_1_load).
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hyper2kvmd.model.disks import Volume
from hyper2kvmd.volumes.mapping import (
    OpenDisks,
    Stretches,
    Unmappable,
    cut,
    mirrored,
)
from hyper2kvmd.volumes.superblock import BlockReader

SECTOR = 512
MAGIC = 0xA92B4EFC
LEVELS = {-1: "linear", 0: "RAID 0", 1: "RAID 1", 4: "RAID 4", 5: "RAID 5", 6: "RAID 6", 10: "RAID 10"}
DAMAGED = "the superblock of one of its members is damaged"
BITMAP = 0x1
FEATURES = {
    0x2: "one of its members is being rebuilt",
    0x4: "it is being reshaped",
    0x8: "one of its members has bad blocks",
    0x10: "one of its members is being replaced",
}
"""Of metadata 1.x, each with the reason why such an array is not mapped."""
AT_REST = (1 << 64) - 1
"""`resync_offset` of an array that was stopped cleanly."""
DEVICES_LIMIT = 1920
SPARE = 0xFFFF
CLEAN_090 = 1
SLACK_090 = 1 << 20
"""Bytes of a member that 0.90 may leave unused; its superblock does not state its own position."""
DM_RAID_MAGIC, BITMAP_MAGIC = b"DmRd", b"bitm"
DM_RAID_BITMAP, DM_RAID_BITS = 4096, 4096 + 256
"""Byte offsets of LVM RAID's write-intent bitmap on each metadata volume, and of its bits."""
BITMAP_LIMIT = 1 << 20


@dataclass(frozen=True)
class Superblock:
    """`offset` and `size`, in bytes, are those of the array's data on this member."""

    array: str
    name: str
    level: int
    devices: int
    role: int | None
    events: int
    offset: int
    size: int
    clean: bool
    obstacle: str | None = None


def superblock(reader: BlockReader) -> Superblock | None:
    """The member's superblock, of any version; None if there is none for this very device."""
    sectors = reader.size // SECTOR
    for at in (0, 8, ((sectors - 16) & ~7)):
        if at >= 0 and (at + 8) <= sectors:
            found = _version_1(reader, at)
            if found is not None:
                return found
    last = (sectors & ~127) - 128
    return _version_090(reader, last) if last > 0 else None


def _version_1(reader: BlockReader, at: int) -> Superblock | None:
    block = reader.read(at * SECTOR, 4096)
    magic, major, features = struct.unpack_from("<III", block)
    place, limit = struct.unpack_from("<Q", block, 144)[0], struct.unpack_from("<I", block, 220)[0]
    if (magic, major, place) != (MAGIC, 1, at):
        return None
    level, size, devices = (
        struct.unpack_from(form, block, where)[0] for form, where in (("<i", 72), ("<Q", 80), ("<I", 92))
    )
    start, number, events, resync = (
        struct.unpack_from(form, block, where)[0]
        for form, where in (("<Q", 128), ("<I", 160), ("<Q", 200), ("<Q", 208))
    )
    obstacle = None
    length = 256 + 2 * limit
    if (
        limit > DEVICES_LIMIT
        or _sum(block[:216] + bytes(4) + block[220:length]) != struct.unpack_from("<I", block, 216)[0]
    ):
        obstacle = DAMAGED
    elif features & ~BITMAP:
        obstacle = next((why for bit, why in FEATURES.items() if features & bit), "its format is newer than supported")
    role = struct.unpack_from("<H", block, 256 + 2 * number)[0] if obstacle is None and number < limit else SPARE
    name = block[32:64].partition(b"\0")[0].decode("utf-8", errors="replace")
    return Superblock(
        array=str(uuid.UUID(bytes=block[16:32])),
        name=name.rpartition(":")[2],
        level=level,
        devices=devices,
        role=role if role < devices else None,
        events=events,
        offset=start * SECTOR,
        size=size * SECTOR,
        clean=resync == AT_REST,
        obstacle=obstacle,
    )


def _sum(block: bytes) -> int:
    """The checksum of 1.x: the sum of 32-bit words and the rest, with the carry added once."""
    words = len(block) // 4
    total: int = sum(struct.unpack_from(f"<{words}I", block)) + int.from_bytes(block[words * 4 :], "little")
    return (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF


def _version_090(reader: BlockReader, at: int) -> Superblock | None:
    block = reader.read(at * SECTOR, 4096)
    words = struct.unpack("<1024I", block)
    if (words[0], words[1]) != (MAGIC, 0):
        return None
    total = sum(words) - words[38]
    damaged = (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF != words[38]
    size = words[8] * 1024
    if not 0 <= at * SECTOR - size <= SLACK_090:
        return None  # it belongs to a partition at the end of this disk
    return Superblock(
        array=str(uuid.UUID(bytes=struct.pack("<4I", words[5], *words[13:16]))),
        name=str(words[11]),
        level=struct.unpack("<i", struct.pack("<I", words[7]))[0],
        devices=words[10],
        role=words[995] if words[995] < words[10] else None,
        events=words[40] << 32 | words[39],
        offset=0,
        size=size,
        clean=bool(words[33] & CLEAN_090),
        obstacle=DAMAGED if damaged else None,
    )


def holds_table(disk: BlockReader) -> bool:
    """Whether a whole disk is a member with data from its first byte: a partition table there is the array's."""
    found = superblock(disk)
    return found is not None and found.offset == 0


def arrays(machine: OpenDisks, members: Iterable[Volume]) -> list[Volume]:
    """The arrays of `members`; those that cannot be mapped have an obstacle."""
    groups: dict[str, list[tuple[Superblock, Volume]]] = {}
    lost = []
    for volume in members:
        found = superblock(machine.reader(volume.stretches))
        if found is None:
            lost.append(Volume(kind="md", name=f"md of {volume.name}", disk=volume.disk, obstacle=DAMAGED))
        else:
            groups.setdefault(found.array, []).append((found, volume))
    return [*lost, *(_array(group) for group in groups.values())]


def _array(group: list[tuple[Superblock, Volume]]) -> Volume:
    stretches: Stretches = ()
    obstacle = None
    first, volume = group[0]
    try:
        stretches = _stretches(group)
    except Unmappable as reason:
        obstacle = str(reason)
    return Volume(
        kind="md",
        name=f"md {first.name or first.array}",
        disk=stretches[0].legs[0].disk if stretches else volume.disk,
        array=first.name or None,
        stretches=stretches,
        obstacle=obstacle,
    )


def _stretches(group: list[tuple[Superblock, Volume]]) -> Stretches:
    first = group[0][0]
    if first.level != 1:
        raise Unmappable(f"it is {LEVELS.get(first.level, f'of level {first.level}')}, which is not supported")
    for found, _ in group:
        if found.obstacle:
            raise Unmappable(found.obstacle)
    active = {found.role: (found, volume) for found, volume in group if found.role is not None}
    if len(active) != first.devices or len(active) != sum(found.role is not None for found, _ in group):
        raise Unmappable(f"it is degraded: {len(active)} of its {first.devices} members are here")
    if len({(found.events, found.size, found.devices) for found, _ in active.values()}) != 1:
        raise Unmappable("its members differ: one of them is out of date")
    if not all(found.clean for found, _ in active.values()):
        raise Unmappable("it was not stopped cleanly, so that its members may differ")
    return mirrored([cut(volume.stretches, found.offset, found.size) for _, (found, volume) in sorted(active.items())])


def difference(metadata: Sequence[BlockReader]) -> str | None:
    """Why the copies of an LVM RAID 1 may differ, by their metadata volumes; None if they are the same."""
    states = set()
    for reader in metadata:
        if reader.size < DM_RAID_BITS:
            return DAMAGED
        block = reader.read(0, 64)
        bitmap = reader.read(DM_RAID_BITMAP, 256)
        if block[:4] != DM_RAID_MAGIC or bitmap[:4] != BITMAP_MAGIC:
            return "the superblock of one of its copies is damaged, or it was never used"
        events, failed, recovered, synced, level = struct.unpack_from("<QQQQi", block, 16)
        if failed or level != 1 or (recovered, synced) != (AT_REST, AT_REST):
            return "one of its copies has failed, or is being rebuilt"
        sectors, chunk = struct.unpack_from("<Q", bitmap, 40)[0], struct.unpack_from("<I", bitmap, 52)[0]
        bits = -(-sectors * SECTOR // max(chunk, SECTOR))
        length = min(-(-bits // 8), BITMAP_LIMIT)
        if DM_RAID_BITS + length > reader.size or any(reader.read(DM_RAID_BITS, length)):
            return "it was not stopped cleanly, so that its copies may differ"
        states.add(events)
    return None if len(states) == 1 else "one of its copies is out of date"
