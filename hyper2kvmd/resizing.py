"""The sizes of the new disks, which `resize` can make larger than the source's.

Only the disk grows. Partitions and file systems stay as they are: the running guest grows them with its own tools.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hyper2kvmd import units
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import Layout, SourceDisk
from hyper2kvmd.model.sizes import BYTES

LARGEST = 64 << 40
"""Bytes of a disk, here and in Hyper-V."""
TOOLS = {
    "ext2": "resize2fs",
    "ext3": "resize2fs",
    "ext4": "resize2fs",
    "xfs": "xfs_growfs",
    "btrfs": "btrfs filesystem resize max",
    "LVM2_member": "pvresize, then lvextend --resizefs",
    "ntfs": "Disk Management",
}
"""What grows the content of a partition."""


def new_sizes(migration: Migration, disks: Sequence[SourceDisk]) -> tuple[int, ...]:
    """Bytes of each new disk. Raises MigrationFailed (`resize-invalid`)."""
    asked = migration.resize
    if len(asked) > len(disks):
        raise _invalid(
            f"{migration.vm_name}: resize has {len(asked)} values, and the machine has {len(disks)} disks",
            "Write one value for each disk, in their order; +0 leaves a disk as it is",
        )
    grown = tuple(
        _new_size(value, number, disk) for number, (value, disk) in enumerate(zip(asked, disks, strict=False))
    )
    return (*grown, *(disk.virtual_size for disk in disks[len(asked) :]))


def _new_size(asked: str, number: int, disk: SourceDisk) -> int:
    amount = BYTES.read(asked.removeprefix("+"))
    assert amount is not None, asked  # noqa: S101 - the migration has no other values
    size = amount + (disk.virtual_size if asked.startswith("+") else 0)
    if size < disk.virtual_size:
        raise _invalid(
            f"{disk.at}: resize: {asked} makes disk {number + 1} smaller than it is ({units.size(disk.virtual_size)})",
            "Write a larger size, or +10G to add to it: a disk can only grow",
        )
    if size > LARGEST:
        raise _invalid(
            f"{disk.at}: resize: {asked} makes disk {number + 1} larger than {units.size(LARGEST)}",
            "Write a smaller size, or add a second disk to the new machine",
        )
    return size


def _invalid(fact: str, hint: str) -> MigrationFailed:
    return MigrationFailed("resize-invalid", fact, hint=hint)


def whole_disks_apart(layout: Layout) -> Layout:
    """The layout without the places of volumes that are whole disks: these grow with their disk."""
    volumes = (one.with_changes(stretches=()) if one.kind == "disk" else one for one in layout.volumes)
    return layout.with_changes(volumes=tuple(volumes))


def growth(sizes: Sequence[int], disks: Sequence[SourceDisk], layout: Layout) -> Iterator[Concern]:
    """For each disk that grows: what is to be done in the guest afterwards."""
    for number, (size, disk) in enumerate(zip(sizes, disks, strict=True)):
        if size > disk.virtual_size:
            yield Concern(
                code="disk-grown",
                level="information",
                message=f"disk {number + 1} grows from {units.size(disk.virtual_size)} to {units.size(size)}, and what "
                "is on it stays as it is",
                hint=_advice(layout, number),
            )


def _advice(layout: Layout, disk: int) -> str:
    parts = [volume for volume in layout.on_disk(disk) if volume.stretches]
    if not parts:
        return "Grow it in the running guest"
    last = max(parts, key=lambda volume: volume.stretches[0].legs[0].offset)
    if last.kind == "disk" and last.content not in TOOLS:
        return "Grow what is on it in the running guest, or add a partition"
    if last.content not in TOOLS:
        return f"Add a partition in the running guest: the last one ({last.name}) contains {last.content}"
    content = f"its {last.content} with {TOOLS[last.content]}"
    if last.kind == "disk":
        return f"In the running guest, grow {content}"
    return f"In the running guest, grow {last.name} with growpart, then {content}"
