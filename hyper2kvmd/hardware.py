"""Decides what the new machine consists of, once, for the boot proof and for every target."""

from __future__ import annotations

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Firmware, Hardware, Source

DEFAULT_MACHINE = "q35"


def decide_firmware(asked: bool | None, found: Firmware) -> Firmware:
    """What the migration's `uefi` asks for, else what the disks were found to need."""
    if asked is None:
        return found
    return "uefi" if asked else "bios"


def decide_hardware(migration: Migration, source: Source, guest: Guest) -> Hardware:
    """What the migration asks for, else what the source had, on devices that the guest has drivers for."""
    virtio = guest.family != "windows"
    return Hardware(
        firmware=source.firmware,
        machine=migration.machine or DEFAULT_MACHINE,
        memory=migration.memory,
        vcpus=migration.vcpus,
        macs=tuple(nic.mac for nic in guest.nics),
        disk_bus="virtio" if virtio else "sata",
        nic_model="virtio" if virtio else "e1000e",
        rtc="localtime" if guest.family == "windows" else "utc",
    )
