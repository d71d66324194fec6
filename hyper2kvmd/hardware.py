"""Decides the hardware of the new machine once, for the boot proof and for every target.

Each value is set by the migration, else by the source machine, else by a default. The guest decides the models of its
devices and its MAC addresses. `booting` decides the boot disk, and the firmware before the repair, which puts the boot
loader where that firmware looks.
"""

from __future__ import annotations

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Firmware, Hardware, HardwareNic, Machine, Plan

DEFAULT_MACHINE = "q35"
DEFAULT_MEMORY = 2048
"""MiB."""
DEFAULT_VCPUS = 2
MOST_CDROMS = 4
OTHER_NETWORKS = "default"
"""The key of `network_map` for networks that it does not name."""


def decide_machine_type(migration: Migration) -> str:
    """QEMU's machine type."""
    return migration.machine or DEFAULT_MACHINE


def decide_vcpus(migration: Migration, source: Machine) -> int:
    return migration.vcpus or source.vcpus or DEFAULT_VCPUS


def decide_secure_boot(migration: Migration, source: Machine, firmware: Firmware) -> bool:
    """Before the repair, which can still show that the guest will not start with it."""
    asked = source.secure_boot if migration.secure_boot is None else migration.secure_boot
    return bool(asked) and firmware == "uefi"


def decide_tpm(migration: Migration, source: Machine) -> bool:
    return bool(source.tpm if migration.tpm is None else migration.tpm)


def network_for(migration: Migration, network: str | None) -> str | None:
    """The target's network for one of the source; None if `network_map` has none for it."""
    chosen = migration.network_map
    return chosen.get(network or OTHER_NETWORKS) or chosen.get(OTHER_NETWORKS)


def decide_hardware(migration: Migration, plan: Plan, guest: Guest) -> Hardware:
    """The new machine, with devices that the guest has drivers for."""
    source, vcpus = plan.machine, decide_vcpus(migration, plan.machine)
    bootable = guest.capabilities.secure_boot or bool(migration.secure_boot)
    return Hardware(
        firmware=plan.firmware,
        secure_boot=decide_secure_boot(migration, source, plan.firmware) and bootable,
        tpm=decide_tpm(migration, source),
        machine=decide_machine_type(migration),
        memory=migration.memory or source.memory or DEFAULT_MEMORY,
        vcpus=vcpus,
        cores_per_socket=_cores_per_socket(vcpus, source, guest),
        nics=tuple(HardwareNic(mac=nic.mac, network=network_for(migration, nic.network)) for nic in guest.nics),
        boot_disk=guest.boot_disk,
        disk_bus=guest.capabilities.disk_bus,
        nic_model=guest.capabilities.nic_model,
        cdroms=min(source.cdroms or 0, MOST_CDROMS),
        rtc=guest.capabilities.rtc,
        hyperv=guest.family == "windows",
        uuid=source.uuid,
        serial=source.serial,
        genid=source.genid,
    )


def _cores_per_socket(vcpus: int, source: Machine, guest: Guest) -> int | None:
    """As on the source, if its cores fill whole sockets. Else one socket for Windows, which limits their number."""
    cores = source.cores_per_socket
    if cores and vcpus % cores == 0:
        return cores
    return vcpus if guest.family == "windows" else None
