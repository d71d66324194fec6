"""The layout of a machine's disks (partitions, logical volumes, file systems), read without privilege.

Sources: UEFI specification 2.10, chapter 5 (GPT and MBR); LVM2 through `volumes.lvm`.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from hyper2kvmd.model.disks import Layout, Segment, Table, Volume
from hyper2kvmd.volumes import luks, lvm, md
from hyper2kvmd.volumes.boot_code import has_efi_loader, read_boot_code
from hyper2kvmd.volumes.mapping import (
    OpenDisks,
    Stretches,
    Unmappable,
    cut,
    encrypted,
    linear,
)
from hyper2kvmd.volumes.superblock import BlockReader, Content, identify

SECTOR = 512
GPT_ENTRIES_LIMIT = 1024
LOGICAL_LIMIT = 128
NESTING_LIMIT = 6
"""Nested containers: LVM in LUKS on LVM on md is four."""
EXTENDED_TYPES = (0x05, 0x0F, 0x85)
PROTECTIVE = 0xEE
CLAIMED = ("LVM2_member", "linux_raid_member")
"""Content that a host's own tools look for on every device."""
BOOT_SIGNATURE = b"\x55\xaa"
TABLE = 446
"""Offset of the MBR's partition table."""
ACTIVE = 0x80
LOADERS = {b"GRUB ": "GRUB", b"LILO": "LILO", b"SYSLINUX": "SYSLINUX", b"EXTLINUX": "EXTLINUX"}
"""Marks in the first sector, from the loaders' sources."""


@dataclass(frozen=True)
class Partition:
    """`start` and `sectors` in 512-byte sectors."""

    number: int
    start: int
    sectors: int
    type: str
    uuid: str | None
    label: str | None = None


def read_layout(disks: Sequence[BlockReader], keys: Sequence[bytes] = ()) -> Layout:
    """The layout of one machine's disks; `keys` are tried on each LUKS container.

    Damaged tables and metadata show up as missing volumes or as obstacles.
    """
    machine = OpenDisks(disks)
    prefixes = [""] if len(disks) == 1 else [f"disk {number}, " for number in range(1, len(disks) + 1)]
    found = [_outer(disk, number, prefix) for number, (disk, prefix) in enumerate(zip(disks, prefixes, strict=True))]
    volumes = [_with_content(volume, machine) for _, outer in found for volume in outer]
    fresh = volumes
    for _ in range(NESTING_LIMIT):
        fresh = [_with_content(volume, machine) for volume in _inside(machine, volumes, fresh, keys)]
        if not fresh:
            break
        volumes = [*volumes, *fresh]
    return Layout(
        tables=tuple(table for table, _ in found),
        volumes=tuple(volumes),
        boot_code=tuple(read_boot_code(disk, outer) for disk, (_, outer) in zip(disks, found, strict=True)),
        boots=tuple(sign for number, disk in enumerate(disks, 1) if (sign := boot_sign(disk, number))),
    )


def boot_sign(disk: BlockReader, number: int) -> str | None:
    """What in the first sector starts a system: a boot loader's code, or the mark of the active partition.

    Partitioning tools write boot code into data disks, too, so only loaders that are installed count.
    """
    sector = disk.read(0, SECTOR) if disk.size >= SECTOR else b""
    if sector[510:] != BOOT_SIGNATURE:
        return None
    for mark, loader in LOADERS.items():
        if mark in sector[:TABLE]:
            return f"disk {number} starts {loader}"
    active = [entry for entry in range(4) if sector[TABLE + 16 * entry] == ACTIVE and sector[TABLE + 16 * entry + 4]]
    plain = all(sector[TABLE + 16 * entry] in (0, ACTIVE) for entry in range(4))
    return f"partition {active[0] + 1} of disk {number} is active" if len(active) == 1 and plain else None


def _inside(machine: OpenDisks, volumes: list[Volume], fresh: list[Volume], keys: Sequence[bytes]) -> list[Volume]:
    """The volumes inside the containers among `fresh`. Volume groups come last: they may span several depths."""
    arrays = md.arrays(machine, [volume for volume in fresh if volume.content == "linux_raid_member"])
    opened = [_decrypted(volume, machine, keys) for volume in fresh if volume.content == "crypto_LUKS"]
    if arrays or opened:
        return [*arrays, *opened]
    known = {(volume.vg, volume.lv) for volume in volumes if volume.kind == "lv"}
    physical = [volume for volume in volumes if volume.content == "LVM2_member"]
    return [volume for volume in lvm.logical_volumes(machine, physical) if (volume.vg, volume.lv) not in known]


def _decrypted(volume: Volume, machine: OpenDisks, keys: Sequence[bytes]) -> Volume:
    stretches: Stretches = ()
    obstacle = None
    try:
        opened = luks.unlock(machine.reader(volume.stretches), keys, machine.budget)
        stretches = encrypted(cut(volume.stretches, opened.offset, opened.length), opened.how)
        machine.keys[opened.how.container] = opened.key
    except (luks.Locked, Unmappable) as reason:
        obstacle = str(reason)
    return Volume(
        kind="luks", name=f"{volume.name}, decrypted", disk=volume.disk, stretches=stretches, obstacle=obstacle
    )


def _outer(reader: BlockReader, disk: int, prefix: str) -> tuple[Table, list[Volume]]:
    found = None if md.holds_table(reader) else _table(reader)
    if found is not None:
        return found[0], [_volume(partition, disk, prefix) for partition in found[1]]
    whole = Segment(disk=disk, offset=0, length=reader.size - reader.size % SECTOR)
    return "none", [Volume(kind="disk", name=f"{prefix}whole disk", disk=disk, stretches=linear(whole))]


def _table(reader: BlockReader) -> tuple[Table, tuple[Partition, ...]] | None:
    gpt = _gpt(reader)
    if gpt is not None:
        return "gpt", gpt
    dos = _dos(reader)
    return None if dos is None else ("dos", dos)


def _volume(partition: Partition, disk: int, prefix: str) -> Volume:
    segment = Segment(disk=disk, offset=partition.start * SECTOR, length=partition.sectors * SECTOR)
    return Volume(
        kind="partition",
        name=f"{prefix}partition {partition.number}",
        disk=disk,
        number=partition.number,
        stretches=linear(segment),
        parttype=partition.type,
        partuuid=partition.uuid,
        partlabel=partition.label,
    )


def _with_content(volume: Volume, machine: OpenDisks) -> Volume:
    if not volume.stretches or volume.parttype in {f"{kind:02x}" for kind in EXTENDED_TYPES}:
        return volume
    reader = machine.reader(volume.stretches)
    content = identify(reader)
    if volume.kind == "md" and content.type == "unknown" and _table(reader) is not None:
        return volume.with_changes(stretches=(), obstacle="it contains a partition table, which is not supported")
    return volume.with_changes(
        content=content.type,
        uuid=content.uuid,
        label=content.label,
        efi_loader=volume.is_esp and content.type == "vfat" and has_efi_loader(reader),
        mounted_at=content.mounted_at,
        multi_device=content.multi_device,
        obstacle=volume.obstacle or _claim(volume, content, machine),
    )


def _claim(volume: Volume, content: Content, machine: OpenDisks) -> str | None:
    """Why it cannot be mounted: each of its parts is a device of the host during the mount."""
    if content.type in CLAIMED:
        return None
    for segment in volume.segments:
        found = identify(machine.reader(linear(segment))).type
        if found in CLAIMED:
            return f"its part at {segment.offset} would be recognised as a {found} by the host"
    return None


def _fits(reader: BlockReader, start: int, sectors: int) -> bool:
    return start > 0 and sectors > 0 and (start + sectors) * SECTOR <= reader.size


def _gpt(reader: BlockReader) -> tuple[Partition, ...] | None:
    """Partitions of the primary table, or of the backup at the end of the disk if the primary is damaged."""
    last = reader.size // SECTOR - 1
    for lba in (1, last):
        if reader.size < 34 * SECTOR:
            return None
        header = reader.read(lba * SECTOR, SECTOR)
        if header[:8] != b"EFI PART":
            continue
        length, checksum = struct.unpack_from("<II", header, 12)
        if not 92 <= length <= SECTOR:
            continue
        if zlib.crc32(header[:16] + bytes(4) + header[20:length]) != checksum:
            continue
        first, count, size = struct.unpack_from("<QII", header, 72)
        if size < 128 or size % 8 or count > GPT_ENTRIES_LIMIT or not _fits(reader, first, -(-count * size // SECTOR)):
            continue
        entries = reader.read(first * SECTOR, count * size)
        return tuple(_gpt_entries(reader, entries, size))
    return None


def _gpt_entries(reader: BlockReader, entries: bytes, size: int) -> list[Partition]:
    found = []
    for number, at in enumerate(range(0, len(entries), size), start=1):
        entry = entries[at : at + size]
        start, end = struct.unpack_from("<QQ", entry, 32)
        if any(entry[:16]) and _fits(reader, start, end - start + 1):
            found.append(
                Partition(
                    number=number,
                    start=start,
                    sectors=end - start + 1,
                    type=str(uuid.UUID(bytes_le=entry[:16])),
                    uuid=str(uuid.UUID(bytes_le=entry[16:32])),
                    label=entry[56:128].decode("utf-16-le", errors="replace").partition("\0")[0] or None,
                )
            )
    return found


def _dos(reader: BlockReader) -> tuple[Partition, ...] | None:
    """Primary and logical partitions; None for a disk without an MBR partition table."""
    if reader.size < 2 * SECTOR:
        return None
    record = reader.read(0, SECTOR)
    primary = _dos_entries(record)
    if primary is None or not any(_fits(reader, start, sectors) for _, start, sectors in primary):
        return None
    signature = struct.unpack_from("<I", record, 440)[0]

    def partition(number: int, kind: int, start: int, sectors: int) -> Partition:
        name = f"{signature:08x}-{number:02x}" if signature else None
        return Partition(number, start, sectors, f"{kind:02x}", name)

    found = []
    for number, (kind, start, sectors) in enumerate(primary, start=1):
        if kind and _fits(reader, start, sectors):
            found.append(partition(number, kind, start, sectors))
    extended = next((start for kind, start, _ in primary if kind in EXTENDED_TYPES), None)
    if extended is not None:
        for number, logical in enumerate(_logical(reader, extended), start=5):
            found.append(partition(number, *logical))
    return tuple(found)


def _logical(reader: BlockReader, extended: int) -> list[tuple[int, int, int]]:
    """Type, start and sectors of the logical partitions, in the order of their chain."""
    found: list[tuple[int, int, int]] = []
    record_at, seen = extended, set[int]()
    while record_at not in seen and len(found) < LOGICAL_LIMIT and _fits(reader, record_at, 1):
        seen.add(record_at)
        entries = _dos_entries(reader.read(record_at * SECTOR, SECTOR))
        if entries is None:
            break
        kind, start, sectors = entries[0]
        if kind and _fits(reader, record_at + start, sectors):
            found.append((kind, record_at + start, sectors))
        link_kind, link, _ = entries[1]
        if link_kind not in EXTENDED_TYPES:
            break
        record_at = extended + link
    return found


def _dos_entries(record: bytes) -> tuple[tuple[int, int, int], ...] | None:
    if record[510:512] != b"\x55\xaa":
        return None
    entries = []
    for at in range(446, 510, 16):
        flag, kind, start, sectors = record[at], record[at + 4], *struct.unpack_from("<II", record, at + 8)
        if flag not in (0x00, 0x80) or (kind == 0 and sectors) or kind == PROTECTIVE:
            return None
        entries.append((kind, start, sectors))
    return tuple(entries)
