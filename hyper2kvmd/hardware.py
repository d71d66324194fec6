"""Decides the hardware of the new machine once, for the boot proof and for every target.

Size and machine type are set by the migration, else by the source machine, else by a default. The guest decides the
models of its devices and its MAC addresses. `booting` decides the boot disk, and the firmware
before the repair, which puts the boot loader where that firmware looks.
"""

from __future__ import annotations

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware, Machine, Plan

DEFAULT_MACHINE = "q35"
DEFAULT_MEMORY = 2048
"""MiB."""
DEFAULT_VCPUS = 2


def decide_machine_type(migration: Migration) -> str:
    """QEMU's machine type."""
    return migration.machine or DEFAULT_MACHINE


def decide_vcpus(migration: Migration, source: Machine) -> int:
    return migration.vcpus or source.vcpus or DEFAULT_VCPUS


def decide_hardware(migration: Migration, plan: Plan, guest: Guest) -> Hardware:
    """The new machine, with devices that the guest has drivers for."""
    source = plan.machine
    return Hardware(
        firmware=plan.firmware,
        machine=decide_machine_type(migration),
        memory=migration.memory or source.memory or DEFAULT_MEMORY,
        vcpus=decide_vcpus(migration, source),
        macs=tuple(nic.mac for nic in guest.nics),
        boot_disk=guest.boot_disk,
        disk_bus=guest.capabilities.disk_bus,
        nic_model=guest.capabilities.nic_model,
        rtc=guest.capabilities.rtc,
    )
