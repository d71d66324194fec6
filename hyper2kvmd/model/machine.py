"""The machine: what it was, what was planned for it, and the hardware of the new one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hyper2kvmd.model.disks import Layout, SourceDisk
from hyper2kvmd.model.frozen import Frozen

Firmware = Literal["bios", "uefi"]
DiskBus = Literal["virtio", "sata"]
NicModel = Literal["virtio", "e1000e"]
Rtc = Literal["utc", "localtime"]
Video = Literal["vga"]
Extra = Literal["usb", "agent", "balloon", "rng"]
"""A USB controller with a tablet; the channel of QEMU's guest agent; virtio's memory balloon and source of entropy."""
MAX_MEMORY = 16 << 20
"""MiB."""
MAX_VCPUS = 1024


class LocalFile(Frozen):
    """A disk in a file of this host."""

    path: Path


DiskRef = LocalFile
"""Where the bytes of a disk are. Members of archives and remote disks will be further kinds."""


class MachineDisk(Frozen):
    """One disk of the source machine."""

    at: DiskRef


class SourceNic(Frozen):
    """A network card of the source, as its .vmx has it."""

    mac: str | None
    """Six octets in lower case, with colons; None for a machine that never ran."""
    slot: int | None = None
    """VMware's PCI slot number: 192 for the card that a guest with predictable names calls ens192."""


class Machine(Frozen):
    """What the source machine was, as far as its description tells. None: it does not say."""

    disks: tuple[MachineDisk, ...]
    """The boot disk first."""
    memory: int | None = None
    """MiB."""
    vcpus: int | None = None
    nics: tuple[SourceNic, ...] = ()
    """Empty when nothing tells."""
    concerns: tuple[str, ...] = ()
    """What is missing or unclear in the description: warnings."""


class Plan(Frozen):
    """What the disks were found to hold, and what the migration needs."""

    machine: Machine
    disks: tuple[SourceDisk, ...]
    layout: Layout
    firmware: Firmware
    needed_bytes: int
    """To be free in the conversion directory's file system before the first byte."""
    publish_bytes: int = 0
    """To be free in the output directory's, when that is another one."""


class Hardware(Frozen):
    """What the new machine consists of: the boot proof and every target render the same value."""

    firmware: Firmware
    machine: str
    """QEMU's machine type."""
    memory: int
    """MiB."""
    vcpus: int
    macs: tuple[str, ...]
    """One network interface each, in this order."""
    disk_bus: DiskBus = "virtio"
    nic_model: NicModel = "virtio"
    rtc: Rtc = "utc"
    video: Video = "vga"
    """Every guest has a driver for it."""
    extras: tuple[Extra, ...] = ("usb", "agent", "balloon", "rng")
    """What makes a guest easier to use; one without drivers for them boots all the same."""
