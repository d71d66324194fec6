"""The places of a machine's disks on its controllers, from a .vmx."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hyper2kvmd.disk.file_names import family, last_part, same_name
from hyper2kvmd.machines.vmx.settings import Settings
from hyper2kvmd.model.disks import LocalFile
from hyper2kvmd.model.machine import DiskAddress, MachineDisk

DEVICE = re.compile(r"(scsi|sata|nvme|ide)(0|[1-9][0-9]?):(0|[1-9][0-9]{0,2})")
SLOT = range(100_000)


def address_of(device: str, settings: Settings) -> DiskAddress | None:
    """The address of a device such as `scsi0:1`; None for a device that is on none of these buses."""
    match = DEVICE.fullmatch(device)
    if match is None:
        return None
    slot = settings.number(f"{match[1]}{match[2]}.pcislotnumber", SLOT)
    place = {"bus": match[1], "controller": int(match[2]), "unit": int(match[3]), "slot": slot}
    return DiskAddress.model_validate(place)


def with_addresses(disks: tuple[MachineDisk, ...], settings: Settings) -> tuple[MachineDisk, ...]:
    """`disks` with the addresses of those that `settings` name, by file or by snapshot chain."""
    places = tuple(_places(settings))
    return tuple(
        disk.with_changes(address=_place_of(disk.at.path.name, places)) if isinstance(disk.at, LocalFile) else disk
        for disk in disks
    )


def _places(settings: Settings) -> Iterator[tuple[str, DiskAddress]]:
    for key, value in settings.values.items():
        device, _, name = key.rpartition(".")
        if name == "filename" and settings.flag(f"{device}.present", default=True):
            address = address_of(device, settings)
            if address is not None:
                yield last_part(value), address


def _place_of(name: str, places: Sequence[tuple[str, DiskAddress]]) -> DiskAddress | None:
    for same in (str.__eq__, same_name, _same_chain):
        found = [address for file, address in places if same(file, name)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _same_chain(one: str, other: str) -> bool:
    return same_name(family(one), family(other))
