"""The guest on the disks: what it is and what was repaired."""

from __future__ import annotations

from typing import Literal

from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.machine import DiskBus, NicModel, Rtc


class Change(Frozen):
    """One edit of a guest file, made by one fix."""

    fix: str
    path: str
    summary: str
    diff: str = ""
    """Unified diff for text; one line of facts for binary files."""


class Nic(Frozen):
    """A network card of the migrated machine."""

    name: str | None
    """What the guest will call its interface; None when nothing in the guest asks for a name."""
    mac: str


class Capabilities(Frozen):
    """The devices that the guest has drivers for when it boots next, and how it reads the clock."""

    disk_bus: DiskBus = "virtio"
    nic_model: NicModel = "virtio"
    rtc: Rtc = "utc"


class Guest(Frozen):
    """What the disk holds, what was repaired and what could not be."""

    family: Literal["linux", "windows", "none"] = "linux"
    os_id: str = ""
    os_name: str = ""
    hostname: str = ""
    architecture: str = ""
    kernels: tuple[str, ...] = ()
    boot_loader: str = ""
    root: str = ""
    nics: tuple[Nic, ...] = ()
    """In the order of their places on the bus."""
    fstab_before: str = ""
    fstab_after: str = ""
    capabilities: Capabilities = Capabilities()
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
