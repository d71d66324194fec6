"""The new machine beside the source machine, in words: for the plan, the log and the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hyper2kvmd.hardware import (
    CONNECTS_ALL,
    WITHOUT_CDROMS,
    WITHOUT_GENID,
    decide_hardware,
    expected_hardware,
    network_for,
)
from hyper2kvmd.markdown import Row
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.guest import Guest, Nic
from hyper2kvmd.model.machine import DiskAddress, Firmware, Hardware, Plan, SourceNic
from hyper2kvmd.resizing import new_sizes
from hyper2kvmd.units import size

DISK_HEADINGS = ("disk", "boot", "bus", "size", "image")
CARD_HEADINGS = ("card", "MAC address", "model", "name", "network")
LATER = "decided later"
"""By the guest's drivers or configuration, which a dry run could not inspect."""
FIRMWARE: dict[Firmware, str] = {"bios": "BIOS", "uefi": "UEFI"}
ASSIGNS_UUID = ("openstack",)
"""Targets that keep neither the source's UUID nor its serial number."""


@dataclass(frozen=True)
class MachineOverview:
    facts: tuple[tuple[str, str], ...]
    disks: tuple[Row, ...]
    """In the order of the new machine, under DISK_HEADINGS."""
    cards: tuple[Row, ...]
    """The same under CARD_HEADINGS."""

    def lines(self) -> Iterator[str]:
        """One line for the machine and each of its devices."""
        yield "; ".join(f"{name}: {value}" for name, value in self.facts)
        for number, boot, bus, capacity, image in self.disks:
            yield _line(f"disk {number}", boot and "boots", bus, capacity, image)
        for number, mac, model, name, network in self.cards:
            yield _line(f"network card {number}", f"MAC address {mac}", model, name, network)


def overview(migration: Migration, plan: Plan, hardware: Hardware, guest: Guest) -> MachineOverview:
    bus, boot = hardware.disk_bus, None if guest.family == "none" else hardware.boot_disk
    return MachineOverview(
        facts=tuple(_facts(migration, plan, hardware)),
        disks=tuple(_disks(migration, plan, bus, boot)),
        cards=tuple(_card(migration, hardware, number, nic) for number, nic in enumerate(guest.nics, start=1)),
    )


def planned_overview(migration: Migration, plan: Plan) -> MachineOverview:
    """From a dry run, which may not have inspected the guest."""
    if plan.guest is not None:
        return overview(migration, plan, decide_hardware(migration, plan, plan.guest), plan.guest)
    return MachineOverview(
        facts=tuple(_facts(migration, plan, expected_hardware(migration, plan))),
        disks=tuple(_disks(migration, plan, LATER, None)),
        cards=tuple(_cards_of_source(migration, plan)),
    )


def _line(subject: str, *facts: str) -> str:
    return f"{subject}: {', '.join(filter(None, facts))}"


def _facts(migration: Migration, plan: Plan, hardware: Hardware) -> Iterator[tuple[str, str]]:
    source = plan.machine
    yield "name", _beside_source(migration.vm_name, source.name)
    yield "CPUs", _cpus(migration, plan, hardware)
    yield "memory", _memory(migration, plan, hardware)
    yield "machine type", hardware.machine
    yield "firmware", _beside_source(FIRMWARE[hardware.firmware], source.firmware and FIRMWARE[source.firmware])
    yield "Secure Boot", _beside_source(_switch(hardware.secure_boot), _known_switch(source.secure_boot))
    yield "TPM", _beside_source(_tpm(hardware.tpm), None if source.tpm is None else _tpm(source.tpm))
    yield "UUID", _uuid(migration, hardware)
    if hardware.serial is not None:
        yield "serial number", _identity(hardware.serial, migration.target not in ASSIGNS_UUID, "new")
    if hardware.genid is not None:
        yield "VM generation ID", _identity(hardware.genid, migration.target not in WITHOUT_GENID, "none")
    yield "CD-ROM drives", _drives(migration, plan, hardware)


def _identity(value: str, kept: bool, otherwise: str) -> str:
    return f"{value} (kept)" if kept else f"{otherwise} (source: {value})"


def _drives(migration: Migration, plan: Plan, hardware: Hardware) -> str:
    has = 0 if migration.target in WITHOUT_CDROMS else hardware.cdroms
    had = plan.machine.cdroms or 0
    return _beside_source(f"{has}, empty" if has else "none", str(had) if had > has else None)


def _beside_source(new: str, source: str | None, default: bool = False) -> str:
    """A value of the new machine, and the source's if that is another one."""
    if default:
        return f"{new} (default)"
    return new if source in (None, new) else f"{new} (source: {source})"


def _switch(on: bool) -> str:
    return "on" if on else "off"


def _known_switch(on: bool | None) -> str | None:
    return None if on is None else _switch(on)


def _tpm(there: bool) -> str:
    return "2.0" if there else "none"


def _cpus(migration: Migration, plan: Plan, hardware: Hardware) -> str:
    source = plan.machine
    default = migration.vcpus is None and source.vcpus is None
    had = None if source.vcpus is None else _topology(source.vcpus, source.cores_per_socket)
    return _beside_source(_topology(hardware.vcpus, hardware.cores_per_socket), had, default)


def _memory(migration: Migration, plan: Plan, hardware: Hardware) -> str:
    had = None if plan.machine.memory is None else size(plan.machine.memory << 20)
    return _beside_source(size(hardware.memory << 20), had, migration.memory is None and had is None)


def _topology(vcpus: int, cores: int | None) -> str:
    if not cores or vcpus % cores:
        return str(vcpus)
    sockets = vcpus // cores
    return (
        f"{vcpus}: {sockets} {'socket' if sockets == 1 else 'sockets'} of {cores} {'core' if cores == 1 else 'cores'}"
    )


def _uuid(migration: Migration, hardware: Hardware) -> str:
    if hardware.uuid is None:
        return "new"
    return _identity(hardware.uuid, migration.target not in ASSIGNS_UUID, "new")


def _disks(migration: Migration, plan: Plan, bus: str, boot: int | None) -> Iterator[Row]:
    images = migration.output_names(len(plan.disks))
    for number, capacity in enumerate(new_sizes(migration, plan.disks)):
        had = _place(plan.identities[number].address)
        yield str(number + 1), "yes" if number == boot else "", _change(had, bus), size(capacity), images[number]


def _place(address: DiskAddress | None) -> str:
    return f"{address.bus}{address.controller}:{address.unit}" if address is not None else ""


def _change(source: str | None, new: str) -> str:
    return f"{source} -> {new}" if source else new


def _card(migration: Migration, hardware: Hardware, number: int, nic: Nic) -> Row:
    mac = f"{nic.mac} ({'new' if nic.mac_is_new else 'kept'})"
    return str(number), mac, hardware.nic_model, nic.name or "", _network(migration, nic.network, nic.connected)


def _cards_of_source(migration: Migration, plan: Plan) -> Iterator[Row]:
    for number, card in enumerate(plan.machine.nics or (SourceNic(mac=None),), start=1):
        mac = f"{card.mac} (kept)" if card.mac else LATER
        yield str(number), mac, LATER, "", _network(migration, card.network, card.connected)


def _network(migration: Migration, source: str | None, connected: bool) -> str:
    default = migration.libvirt_network if migration.target == "libvirt" else "the target's default"
    network = _change(source, network_for(migration, source) or default)
    return network if connected or migration.target in CONNECTS_ALL else f"{network} (not connected)"
