"""The machine: what the source was, and the hardware of the new one."""

from __future__ import annotations

from typing import Literal

from hyper2kvmd.model.disks import Layout, SourceDisk
from hyper2kvmd.model.frozen import Frozen

Firmware = Literal["bios", "uefi"]


class SourceNic(Frozen):
    """A network card of the source, as its .vmx has it."""

    mac: str | None
    """Six octets in lower case, with colons; None for a machine that never ran."""
    slot: int | None = None
    """VMware's PCI slot number: 192 for the card that a guest with predictable names calls ens192."""


class Source(Frozen):
    """What `plan` found and checked."""

    disks: tuple[SourceDisk, ...]
    layout: Layout
    nics: tuple[SourceNic, ...] = ()
    """Empty when no .vmx tells."""
    firmware: Firmware
    needed_bytes: int
    """To be free in the conversion directory's file system before the first byte."""
    publish_bytes: int = 0
    """To be free in the output directory's, when that is another one."""


class Hardware(Frozen):
    """What the new machine consists of: the boot proof and every target render the same value."""

    firmware: Firmware
    machine: str = "q35"
    memory: int = 2048
    """MiB."""
    vcpus: int = 2
    macs: tuple[str, ...] = ("52:54:00:00:00:01",)
    """One network interface each, in this order."""
    disk_bus: Literal["virtio", "sata"] = "virtio"
    nic_model: Literal["virtio", "e1000e"] = "virtio"
    rtc: Literal["utc", "localtime"] = "utc"
