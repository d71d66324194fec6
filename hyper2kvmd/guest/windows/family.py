"""Finds a Windows guest. It is not repaired yet: its drivers do not change."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Literal

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.family import BootedUnchanged, GuestDisks, OverlayDisks, warning
from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.guest.nics import nics_as_they_were
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.guest import WITHOUT_DRIVERS, Guest

NTFS_LOADERS = ("bootmgr", "ntldr")
REGISTRY = ("windows", "system32", "config", "system")
OF_WINDOWS = WITHOUT_DRIVERS.with_changes(rtc="localtime")
"""Its hardware clock is in local time."""
NOT_REPAIRED = warning(
    "this is a Windows guest: virtio drivers were NOT injected, so its domain has SATA disks and e1000e network cards. "
    "Install the virtio drivers in it before you change these to virtio."
)


@dataclass(frozen=True)
class FoundWindows:
    disks: GuestDisks

    def repair(self) -> Guest:
        """Nothing is written."""
        self.disks.ctx.warn(NOT_REPAIRED)
        nics = nics_as_they_were(self.disks.nics, self.disks.migration.vm_name)
        return Guest(family="windows", nics=nics, capabilities=OF_WINDOWS, warnings=(NOT_REPAIRED,))


@dataclass(frozen=True)
class Windows:
    name: Literal["windows"] = "windows"
    unproven_hint: str = "Boot the guest by hand and look at its screen, or set verify: content"

    def find(self, disks: GuestDisks, /) -> FoundWindows | None:
        return FoundWindows(disks) if _holds_windows(disks.access, disks.layout) else None

    def prepare_boot(self, _disks: OverlayDisks, /) -> BootedUnchanged:
        return BootedUnchanged("nothing is prepared in a Windows guest")


def _holds_windows(access: Access, layout: Layout) -> bool:
    """A boot manager or a registry on NTFS; if the host cannot mount that, NTFS or BitLocker itself."""
    if any(volume.content == "BitLocker" for volume in layout.volumes):
        return True
    for volume in layout.volumes:
        if volume.content != "ntfs":
            continue
        try:
            with access.mount(volume, read_only=True) as handle:
                if _is_windows(GuestTree({"/": ConfinedRoot(handle)})):
                    return True
        except MigrationFailed:
            return True
    return False


def _is_windows(tree: GuestTree) -> bool:
    """NTFS keeps the case of names, and Windows ignores it."""
    top = {name.lower() for name in tree.listdir("/")}
    place = "/"
    for part in REGISTRY:
        name = next((name for name in tree.listdir(place) if name.lower() == part), None)
        if name is None:
            return not top.isdisjoint(NTFS_LOADERS)
        place = posixpath.join(place, name)
    return True
