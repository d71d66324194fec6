"""What on the volumes of a Windows guest prevents its repair. It is found before a byte is converted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.files.tree import printable
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import Layout, Volume
from hyper2kvmd.volumes.ntfs.state import holds_registry, other_folder, require_shut_down
from hyper2kvmd.volumes.superblock import LINUX_FILE_SYSTEMS, BlockReader

DYNAMIC = ("42", "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3", "af9b60a0-1431-4f62-bc68-3311714a69ad")
"""Partition types of dynamic disks (LDM), in MBR and GPT. Source: the LDM documentation of the Linux kernel."""
STORAGE_SPACES = "e75caf8f-f680-4cee-afa3-b001e56efc2d"

ReaderOf = Callable[[Volume], BlockReader]


def check_windows(layout: Layout, reader_of: ReaderOf) -> tuple[bool, tuple[Concern, ...]]:
    """Whether the disks hold a Windows that can be repaired, and concerns about volumes that stay as they are.

    Raises MigrationFailed: `guest-hibernated` and `windows-unclean` for its own volume, and if Windows can only be
    where it is out of reach, `ntfs-damaged`, `windows-bitlocker`, `windows-dynamic-disk`, `windows-storage-spaces`,
    `windows-folder-unsupported`.
    """
    systems, damaged = [], {}
    for volume in readable(layout):
        try:
            systems += [volume] if holds_registry(reader_of(volume)) else []
        except MigrationFailed as failure:
            damaged[volume] = require_damage(failure)
    for volume in systems:
        if volume.parttype in DYNAMIC:
            raise refused(volume)
        require_shut_down(volume.name, reader_of(volume))
    hidden = tuple(volume for volume in layout.volumes if _is_hidden(volume) and volume not in systems)
    if systems:
        return True, tuple(map(_left_alone, (*hidden, *(volume for volume in damaged if volume not in hidden))))
    if not any(volume.content in LINUX_FILE_SYSTEMS for volume in layout.volumes):
        for damage in damaged.values():
            raise damage
        if hidden:
            raise refused(hidden[0])
        for volume in readable(layout):
            _require_no_other(volume, reader_of(volume))
    return False, ()


def has_windows(layout: Layout, reader_of: ReaderOf) -> bool:
    """Whether a Windows is on the volumes that can be read; `check_windows` has judged them."""
    return any(holds(holds_registry, reader_of(volume)) for volume in readable(layout))


def _require_no_other(volume: Volume, reader: BlockReader) -> None:
    folder = other_folder(reader)
    if folder is not None:
        name = printable(folder)
        raise MigrationFailed(
            "windows-folder-unsupported",
            rf"{volume.name} has a Windows in the folder \{name}: only \Windows is supported",
            hint="Set guest: none to convert the disks without a repair, as for disks that hold only data",
        )


def holds(probe: Callable[[BlockReader], bool], reader: BlockReader) -> bool:
    """What `probe` finds on a volume; nothing on a damaged one, which `check_windows` has judged."""
    try:
        return probe(reader)
    except MigrationFailed as failure:
        require_damage(failure)
        return False


def require_damage(failure: MigrationFailed) -> MigrationFailed:
    """`failure` if only the volume is damaged; otherwise it is raised again."""
    if failure.code != "ntfs-damaged":
        raise failure
    return failure


def readable(layout: Layout) -> Iterator[Volume]:
    """The NTFS volumes whose bytes can be read."""
    return (
        volume for volume in layout.volumes if volume.content == "ntfs" and volume.stretches and not volume.obstacle
    )


def _is_hidden(volume: Volume) -> bool:
    return volume.content == "BitLocker" or volume.parttype in (*DYNAMIC, STORAGE_SPACES)


def _kind(volume: Volume) -> str:
    if volume.content == "BitLocker":
        return "encrypted by BitLocker"
    if volume.parttype in DYNAMIC:
        return "on a dynamic disk"
    return "a part of a storage pool (Storage Spaces)" if volume.parttype == STORAGE_SPACES else "damaged"


def _left_alone(volume: Volume) -> Concern:
    return Concern(
        code="windows-volume-unread",
        message=f"{volume.name} is {_kind(volume)}: it is converted as it is, and nothing in it is repaired",
        hint="Check it in the new machine. Keep BitLocker's recovery key at hand",
        level="information",
    )


def refused(volume: Volume) -> MigrationFailed:
    """Windows is, or may be, on this volume, and cannot be repaired there."""
    if volume.content == "BitLocker":
        return MigrationFailed(
            "windows-bitlocker",
            f"{volume.name} is encrypted by BitLocker, so Windows on it cannot be repaired",
            hint="Run `manage-bde -off C:` in the guest, wait until `manage-bde -status` shows it decrypted, shut the "
            "guest down, then export it again",
        )
    if volume.parttype == STORAGE_SPACES:
        return MigrationFailed(
            "windows-storage-spaces",
            f"{volume.name} belongs to a storage pool (Storage Spaces), and no Windows was found outside of it",
            hint="Add the disk that Windows boots from to vmdk:, or set guest: none if these disks hold data only",
        )
    return MigrationFailed(
        "windows-dynamic-disk",
        f"{volume.name} is on a dynamic disk, so Windows on it cannot be repaired",
        hint="Back Windows up and restore it to a basic disk, or use the converter of another vendor: Windows cannot "
        "convert its own disk in place. Set guest: none if these disks hold data only",
    )
