"""Disks without a system that can be repaired: data disks, and unsupported systems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.family import BootedUnchanged, GuestDisks, OverlayDisks, describe
from hyper2kvmd.guest.nics import nics_as_they_were
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.guest import Guest

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
NOTHING_FOUND = "no operating system was found on this disk: it was converted as a data disk, nothing was repaired"


@dataclass(frozen=True)
class DataDisks:
    disks: GuestDisks

    def repair(self) -> Guest:
        """There is nothing to repair."""
        self.disks.ctx.warn(NOTHING_FOUND)
        nics = nics_as_they_were(self.disks.nics, self.disks.migration.vm_name)
        return Guest(family="none", nics=nics, warnings=(NOTHING_FOUND,))


@dataclass(frozen=True)
class WithoutSystem:
    """What no other family has found. It may still boot, for example an unknown kind of Linux."""

    name: Literal["none"] = "none"
    unproven_hint: str = (
        "If it is Linux, add console=ttyS0,115200 to its kernel's command line. Otherwise set verify: content"
    )

    def find(self, disks: GuestDisks, /) -> DataDisks:
        """Raises MigrationFailed: `guest-root-missing` if an unreadable volume may hold a system, `guest-not-linux` for
        an unsupported system.
        """
        seen = "; ".join(describe(volume) for volume in disks.layout.volumes)
        _refuse_hidden(disks.layout, seen)
        _refuse_foreign(disks.layout, seen)
        return DataDisks(disks)

    def prepare_boot(self, _disks: OverlayDisks, /) -> BootedUnchanged:
        return BootedUnchanged("no operating system was found on its disks")


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
            hint="Prepare the guest by hand (virtio in its initramfs, stable names in fstab) and boot it from the "
            "source's own converted image, or move its root to a volume that can be opened",
        )


def _refuse_foreign(layout: Layout, seen: str) -> None:
    for volume in layout.volumes:
        if system := FOREIGN_TYPES.get(volume.parttype or ""):
            raise MigrationFailed(
                "guest-not-linux",
                f"{volume.name} is a partition of {system}; seen: {seen}",
                hint="Only Linux guests are repaired: install virtio drivers in this one, and migrate it by hand",
            )
