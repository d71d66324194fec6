"""Finds a Windows guest. It is not repaired yet: its drivers do not change."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from hyper2kvmd.guest.family import BootedUnchanged, GuestDisks, OverlayDisks
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.guest.nics import nics_as_they_were
from hyper2kvmd.guest.windows.volumes import has_windows
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.guest import Capabilities, Guest

WITHOUT_DRIVERS = Capabilities(disk_bus="sata", nic_model="e1000e", rtc="localtime")
"""Hardware that Windows supports without virtio drivers; its hardware clock is in local time."""
NOT_REPAIRED = (
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
        return Guest(family="windows", nics=nics, capabilities=WITHOUT_DRIVERS, warnings=(NOT_REPAIRED,))


@dataclass(frozen=True)
class Windows:
    name: Literal["windows"] = "windows"
    unproven_hint: str = "Boot the guest by hand and look at its screen, or set verify: content"

    def find(self, disks: GuestDisks, /) -> FoundWindows | None:
        return FoundWindows(disks) if _holds_windows(disks.access, disks.layout) else None

    def prepare_boot(self, _disks: OverlayDisks, /) -> BootedUnchanged:
        return BootedUnchanged("nothing is prepared in a Windows guest")


def _holds_windows(access: Access, layout: Layout) -> bool:
    with ExitStack() as stack:
        return has_windows(layout, lambda volume: stack.enter_context(access.blocks(volume, read_only=True)))
