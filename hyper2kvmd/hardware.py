"""Decides what the new machine consists of, once, for the boot proof and for every target.

The order is the same for each part: what the migration asks for, else what the source machine had, else a default.
"""

from __future__ import annotations

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Firmware, Hardware, Plan

DEFAULT_MACHINE = "q35"
DEFAULT_MEMORY = 2048
"""MiB."""
DEFAULT_VCPUS = 2


def decide_firmware(asked: bool | None, found: Firmware) -> Firmware:
    """What the migration's `uefi` asks for, else what the disks were found to need."""
    if asked is None:
        return found
    return "uefi" if asked else "bios"


def decide_hardware(migration: Migration, plan: Plan, guest: Guest) -> Hardware:
    """The new machine, on devices that the guest has drivers for."""
    source = plan.machine
    return Hardware(
        firmware=plan.firmware,
        machine=migration.machine or DEFAULT_MACHINE,
        memory=migration.memory or source.memory or DEFAULT_MEMORY,
        vcpus=migration.vcpus or source.vcpus or DEFAULT_VCPUS,
        macs=tuple(nic.mac for nic in guest.nics),
        disk_bus=guest.capabilities.disk_bus,
        nic_model=guest.capabilities.nic_model,
        rtc=guest.capabilities.rtc,
    )
