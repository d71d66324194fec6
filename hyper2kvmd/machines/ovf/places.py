"""The places of a system's disks on its controllers, and the order of the disks that follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.ovf.items import Item
from hyper2kvmd.machines.ovf.quantities import whole_number
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.machine import DiskAddress

Bus: TypeAlias = Literal["scsi", "sata", "nvme", "ide"]
BUSES: tuple[Bus, ...] = ("scsi", "nvme", "sata", "ide")
"""In the order in which their disks are listed."""
IDE, SCSI, OTHER_STORAGE = 5, 6, 20
SIMPLE: Mapping[int, Bus] = {IDE: "ide", SCSI: "scsi"}
CONTROLLERS = (IDE, SCSI, OTHER_STORAGE)
LARGEST = 9999
"""Of a controller's or a disk's number."""
SLOT = "slotinfo.pcislotnumber"


@dataclass(frozen=True)
class Controller:
    bus: Bus
    number: int | None
    slot: int | None


@dataclass(frozen=True)
class Place:
    """Where one disk is: by `key`, disks are sorted."""

    address: DiskAddress | None
    key: tuple[int, ...]


def slot_of(item: Item) -> int | None:
    """VMware's PCI slot number of a device."""
    found = whole_number(item.extensions.get(SLOT))
    return found if found is not None and found <= LARGEST else None


def places_of(disks: Sequence[Item], items: Sequence[Item], boot: str) -> tuple[tuple[Place, ...], tuple[Concern, ...]]:
    """The place of each disk among the system's items, and concerns about disks without one of their own.

    `boot` is the InstanceID of the disk that the source machine starts from, as far as it says so: it comes first.
    """
    controllers = _controllers(items)
    taken: dict[tuple[str, int], Item] = {}
    addresses: set[DiskAddress] = set()
    places: list[Place] = []
    concerns: list[Concern] = []
    for at, disk in enumerate(disks):
        place, doubt = _place(disk, at, controllers)
        position = (disk.one("Parent"), disk.number("AddressOnParent") or 0)
        if place.address is not None and (position in taken or place.address in addresses):
            first = taken.get(position)
            doubt = f"the position of {first.label}" if first else "the position of another disk"
            place = Place(None, place.key)
            concerns.append(_concern(disk, f"has {doubt}: it comes after that disk, and its own position is unknown"))
        elif doubt and len(disks) > 1:
            concerns.append(_concern(disk, f"{doubt}: its position among the disks is not certain"))
        if place.address is not None:
            taken[position] = disk
            addresses.add(place.address)
        places.append(Place(place.address, (not boot or disk.instance != boot, *place.key)))
    return tuple(places), tuple(concerns)


def _controllers(items: Sequence[Item]) -> Mapping[str, Controller]:
    """By InstanceID; of several with the same one, which the schema forbids, none."""
    found = [(item, bus) for item in items if (bus := _bus(item)) is not None]
    instances, buses = Counter(item.instance for item, _ in found), Counter(bus for _, bus in found)
    return {
        item.instance: Controller(bus, _number(item, alone=buses[bus] == 1), slot_of(item))
        for item, bus in found
        if instances[item.instance] == 1 and item.instance
    }


def _bus(item: Item) -> Bus | None:
    """Other storage without a further type is VirtualBox's SATA controller."""
    if item.kind == OTHER_STORAGE:
        return "nvme" if "nvme" in item.subtype else "scsi" if "scsi" in item.subtype else "sata"
    return SIMPLE.get(item.kind or 0)


def _number(item: Item, *, alone: bool) -> int | None:
    found = item.number("Address")
    if found is None:
        return 0 if alone else None
    return found if found <= LARGEST else None


def _place(disk: Item, at: int, controllers: Mapping[str, Controller]) -> tuple[Place, str]:
    """The place, and why it is unknown."""
    parent, unit = disk.one("Parent"), disk.number("AddressOnParent")
    controller = controllers.get(parent)
    unknown = Place(None, (len(BUSES), 0, unit if unit is not None and not parent else LARGEST, at))
    if controller is None:
        absent = f"is on the controller {faults.shown(parent)}, which does not exist"
        return unknown, absent if parent else "names no controller"
    if controller.number is None:
        return unknown, "is on a controller without a number (Address)"
    if unit is None or unit > LARGEST:
        return unknown, "has no number on its controller (AddressOnParent)"
    address = DiskAddress(bus=controller.bus, controller=controller.number, unit=unit, slot=controller.slot)
    return Place(address, (BUSES.index(controller.bus), controller.number, unit, at)), ""


def _concern(disk: Item, fact: str) -> Concern:
    return Concern(
        code="disk-position-unclear",
        message=f"{disk.place} {fact}",
        hint="Check the order of the disks in the report. If it is wrong, name them in order: `vmdk: [first, second]`",
    )
