"""Reads the text of an OVF descriptor: the systems in it, and one of them as a machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.machines.ovf import devices, faults, processors
from hyper2kvmd.machines.ovf.configurations import choose_configuration
from hyper2kvmd.machines.ovf.described import Described
from hyper2kvmd.machines.ovf.disks import DiskSection, is_disk
from hyper2kvmd.machines.ovf.elements import Element, read_elements
from hyper2kvmd.machines.ovf.items import Item, all_items, configurations_used, hardware_of, items_of
from hyper2kvmd.machines.ovf.places import places_of
from hyper2kvmd.machines.ovf.properties import properties_of
from hyper2kvmd.machines.ovf.sections import VirtualSystem, choose_system, require_envelope, sections, systems_in
from hyper2kvmd.machines.ovf.settings import AddedSettings, settings_of, within
from hyper2kvmd.model.concerns import Concern, first_concerns
from hyper2kvmd.model.machine import Machine

FactT = TypeVar("FactT")


def systems(text: bytes, *, name: str) -> tuple[str, ...]:
    """The identifiers of its systems, also of those in nested collections. `name` is the descriptor's, for messages.

    Raises as `read_elements` does, and MigrationFailed (`ovf-system-unclear`) if there is none.
    """
    envelope = require_envelope(read_elements(text, name), name)
    return tuple(system.identifier for system in systems_in(envelope, name))


def read_envelope(
    text: bytes,
    *,
    name: str,
    configuration: str | None = None,
    system: str | None = None,
    overridden: AbstractSet[str] = frozenset(),
) -> Described:
    """The machine. `name` is the descriptor's, for messages; `system` chooses one of several machines.

    `overridden` are the keys of the migration that replace a fact (`memory`, `vcpus`, `uefi`, `secure_boot`): that fact
    may be unclear. Raises as `read_elements` does, and MigrationFailed (`ovf-system-unclear`,
    `ovf-configuration-unclear`, `ovf-value-unclear`, `ovf-disk-unclear`, `ovf-disk-unsupported`, `disks-too-many`).
    """
    envelope = require_envelope(read_elements(text, name), name)
    every = systems_in(envelope, name)
    chosen = choose_system(every, system, name)
    hardware = hardware_of(chosen.element, name)
    option = choose_configuration(envelope, configurations_used(hardware), configuration, name)
    items = items_of(hardware, option, name)
    settings = settings_of(chosen.element, hardware, name)
    machine = _machine(chosen, hardware, items, settings, overridden)
    disks = DiskSection(envelope, properties_of(*chosen.owners, chosen.element, configuration=option), name)
    disk_items = [item for item in items if is_disk(item)]
    places, doubts = places_of(disk_items, items, _boot_device(chosen))
    concerns = (
        *doubts,
        *_about_unused(disks, every, name),
        *_about_firmware(machine, items, settings),
        *devices.concerns_of(items),
    )
    return Described(
        machine=machine.with_changes(concerns=first_concerns(concerns)), disks=disks.described(disk_items, places)
    )


def _machine(
    system: VirtualSystem,
    hardware: Element,
    items: Sequence[Item],
    settings: AddedSettings,
    overridden: AbstractSet[str],
) -> Machine:
    """Everything but disks and concerns."""
    name = settings.descriptor
    vcpus = _fact("vcpus", lambda: processors.vcpus_of(items, name), overridden)
    return Machine(
        disks=(),
        name=_name(system, hardware),
        memory=_fact("memory", lambda: processors.memory_of(items, name), overridden),
        vcpus=vcpus,
        cores_per_socket=processors.cores_per_socket_of(items, vcpus),
        firmware=_fact("uefi", lambda: settings.firmware, overridden),
        secure_boot=_fact("secure_boot", lambda: settings.secure_boot, overridden),
        tpm=True if devices.has_tpm(items) else settings.virtualbox_tpm,
        uuid=settings.uuid,
        cdroms=devices.cdroms_of(items),
        os_type=_os_type(system.element, settings),
        nics=devices.nics_of(items, settings.virtualbox_cards),
    )


def _fact(key: str, read: Callable[[], FactT | None], overridden: AbstractSet[str]) -> FactT | None:
    """None for an unclear fact that the migration replaces by this key. Other unclear facts raise as `read` does."""
    try:
        return read()
    except MigrationFailed:
        if key in overridden:
            return None
        raise


def _name(system: VirtualSystem, hardware: Element) -> str | None:
    """As its platform shows it: in its Name, else in its virtual hardware, else its identifier."""
    identifiers = (one.text for one in within(hardware, "System", "VirtualSystemIdentifier"))
    named = (*system.names[1:], *identifiers, system.element.get("id") or "")
    return next(filter(None, map(devices.shown_name, named)), None)


def _os_type(system: Element, settings: AddedSettings) -> str | None:
    """VMware's or VirtualBox's identifier of the guest's operating system."""
    described = (one.attributes.get(("vmw", "osType"), "") for one in sections(system, "OperatingSystemSection"))
    own = settings.virtualbox.get("OSType") if settings.virtualbox else None
    return next(filter(None, map(devices.shown_name, (*described, own or ""))), None)


def _boot_device(system: VirtualSystem) -> str:
    """The InstanceID of the disk that the machine starts from; empty if the descriptor does not say."""
    order = next(system.element.foreign("vmw", "BootOrderSection"), None)
    if order is None or order.get("type", "vmw") != "disk":
        return ""
    return order.get("instanceId", "vmw") or ""


def _about_unused(disks: DiskSection, every: Sequence[VirtualSystem], name: str) -> Iterator[Concern]:
    """A concern if no machine has a disk of the package."""
    hardware = [section for system in every for section in sections(system.element, "VirtualHardwareSection")]
    unused = disks.unused([item for section in hardware for item in all_items(section, name)])
    if unused:
        yield Concern(
            code="disk-unused",
            message=f"{name}: no machine has the disks {faults.listed(unused)}: they are not migrated",
            hint="If one of them belongs to the machine, name its disks in order: `vmdk: [first, second]`",
        )


def _about_firmware(machine: Machine, items: Sequence[Item], settings: AddedSettings) -> Iterator[Concern]:
    if machine.firmware == "uefi" and (settings.has_nvram or devices.has_nvram(items)):
        yield Concern(
            code="nvram-not-migrated",
            message=f"{settings.descriptor}: the variables of the source's UEFI firmware are not used",
            hint="Check boot entries and Secure Boot keys of your own, if the guest has some",
            level="information",
        )
