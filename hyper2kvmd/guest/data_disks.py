"""Disks without a system that can be repaired: data disks, and unsupported systems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.family import BootedUnchanged, GuestDisks, OverlayDisks, describe, warning
from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.guest.files.tree import GuestTree, printable
from hyper2kvmd.guest.nics import nics_as_they_were
from hyper2kvmd.model.disks import ESP_TYPES, Layout
from hyper2kvmd.model.guest import WITHOUT_DRIVERS, Guest
from hyper2kvmd.volumes.superblock import LINUX_FILE_SYSTEMS

FOREIGN = ("zfs_member", "ufs", "hfsplus", "apfs", "reiserfs", "jfs", "f2fs", "bcache", "VMFS_volume_member")
FOREIGN_TYPES = {
    "a5": "FreeBSD",
    "a6": "OpenBSD",
    "a9": "NetBSD",
    "af": "macOS",
    "be": "Solaris",
    "bf": "Solaris",
    "fb": "VMware ESXi",
    "516e7cb4-6ecf-11d6-8ff8-00022d09712b": "FreeBSD",
    "516e7cb6-6ecf-11d6-8ff8-00022d09712b": "FreeBSD",
    "516e7cba-6ecf-11d6-8ff8-00022d09712b": "FreeBSD",
    "83bd6b9d-7f41-11dc-be0b-001560b84f0f": "FreeBSD",
    "824cc7a0-36a8-11e3-890a-952519ad3f61": "OpenBSD",
    "49f48d5a-b10e-11dc-b99b-0019d1879648": "NetBSD",
    "48465300-0000-11aa-aa11-00306543ecac": "macOS",
    "7c3457ef-0000-11aa-aa11-00306543ecac": "macOS",
    "6a82cb45-1dd2-11b2-99a6-080020736631": "Solaris",
    "6a85cf4d-1dd2-11b2-99a6-080020736631": "Solaris",
    "aa31e02a-400f-11db-9590-000c2911d1b8": "VMware ESXi",
}
"""Partition types of systems that are not repaired. 6a898cc3... is left out: Solaris shares it with every ZFS."""
SYSTEM_TYPES = {
    **dict.fromkeys(ESP_TYPES, "an EFI system partition"),
    "21686148-6449-6e6f-744e-656564454649": "a BIOS boot partition",
    "9e1a2d38-c612-4316-aa26-8b49521e5a8b": "a PReP boot partition",
    "41": "a PReP boot partition",
    "bc13c2ff-59e6-4262-a352-b275fd6f7172": "an extended boot loader partition",
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "a root partition",
    "44479540-f297-41b2-9af7-d131d5f0458a": "a root partition",
    "b921b045-1df0-41c3-af44-4c6f280d3fae": "a root partition",
    "8484680c-9521-48c6-9c11-b0720656f69e": "a partition for /usr",
    "de94bba4-06d1-4d40-a16a-bfd50179d6ac": "a recovery partition of Windows",
    "fe3a2a5d-4f32-41a7-b725-accc3285a309": "a kernel partition of ChromeOS",
    "5dfbf5f4-2848-4bac-aa5e-0d9a20b745a6": "a partition for /usr of Container Linux",
}
"""Partition types that only a system's disk has. Sources: the Discoverable Partitions Specification, fdisk."""
BOOT_FILES = tuple(
    f"{place}{pattern}"
    for place in ("", "/boot")
    for pattern in ("/vmlinu?*", "/grub*/grub.cfg", "/loader/entries/*.conf")
)
NOTHING_FOUND = warning(
    "no operating system was found on this disk: it is converted as a data disk, and nothing is repaired. Set guest:"
    " none if it holds data only."
)

ALL_DISKS = (
    "Migrate all disks of the machine together: list them in vmdk:, boot disk first. If these disks hold data only, set"
    " guest: none"
)
BY_HAND = (
    "Prepare the guest by hand (the driver ahci in its initramfs, stable names in fstab) and migrate it with guest:"
    " none, or move its root to a volume that can be opened"
)


@dataclass(frozen=True)
class DataDisks:
    """With `guest: none` nobody has looked for a system."""

    disks: GuestDisks

    def repair(self) -> Guest:
        """There is nothing to repair. Nothing is known of the drivers of a system on these disks."""
        migration = self.disks.migration
        warnings = () if migration.guest == "none" else (NOTHING_FOUND,)
        for text in warnings:
            self.disks.ctx.warn(text)
        nics = nics_as_they_were(self.disks.nics, migration.vm_name)
        return Guest(family="none", nics=nics, capabilities=WITHOUT_DRIVERS, warnings=warnings)


@dataclass(frozen=True)
class WithoutSystem:
    """What no other family has found. It may still boot, for example an unknown kind of Linux."""

    name: Literal["none"] = "none"
    unproven_hint: str = (
        "If it is Linux, add console=ttyS0,115200 to its kernel's command line. Otherwise set verify: content"
    )

    def find(self, disks: GuestDisks, /) -> DataDisks:
        """Raises MigrationFailed: `guest-root-missing` if an unreadable volume may hold a system, `guest-not-linux` for
        an unsupported system, `guest-not-found` if the disks boot something.
        """
        seen = "; ".join(describe(volume) for volume in disks.layout.volumes)
        _refuse_hidden(disks.layout, seen)
        _refuse_foreign(disks.layout, seen)
        _refuse_bootable(disks, seen)
        return DataDisks(disks)

    def prepare_boot(self, _disks: OverlayDisks, /) -> BootedUnchanged:
        return BootedUnchanged("nothing is known of an operating system on its disks")


def _refuse_hidden(layout: Layout, seen: str) -> None:
    for volume in layout.volumes:
        if volume.content in FOREIGN:
            reason = f"{volume.name} holds {volume.content}"
        elif volume.obstacle:
            reason = f"{volume.name}: {volume.obstacle}"
        else:
            continue
        raise MigrationFailed(
            "guest-root-missing",
            f"no Linux root that can be opened: {reason}; seen: {seen}",
            hint=ALL_DISKS if volume.incomplete else BY_HAND,
        )


def _refuse_foreign(layout: Layout, seen: str) -> None:
    for volume in layout.volumes:
        if system := FOREIGN_TYPES.get(volume.parttype or ""):
            raise MigrationFailed(
                "guest-not-linux",
                f"{volume.name} is a partition of {system}; seen: {seen}",
                hint="Only Linux guests are repaired: install virtio drivers in this one, and migrate it by hand",
            )


def _refuse_bootable(disks: GuestDisks, seen: str) -> None:
    """A system that was not found would be converted without a repair, and not boot."""
    layout = disks.layout
    typed = (
        f"{volume.name} is {SYSTEM_TYPES[volume.parttype]}"
        for volume in layout.volumes
        if volume.parttype in SYSTEM_TYPES
    )
    signs = [*typed, *layout.boots] or _with_boot_files(disks)
    if signs:
        raise MigrationFailed(
            "guest-not-found",
            f"no operating system was found, but these disks belong to one: {', '.join(signs)}; seen: {seen}",
            hint="Add all disks of the machine to vmdk:, or set guest: none if these disks hold data only",
        )


def _with_boot_files(disks: GuestDisks) -> list[str]:
    signs = []
    for volume in disks.layout.volumes:
        if volume.content in LINUX_FILE_SYSTEMS:
            with disks.access.mount(volume, read_only=True) as handle:
                tree = GuestTree({"/": ConfinedRoot(handle)})
                files = [path for pattern in BOOT_FILES for path in tree.glob(pattern)]
            signs += [f"{volume.name} holds {printable(files[0])}"] if files else []
    return signs
