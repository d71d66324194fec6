"""The places of a machine's disks on its controllers, from a .vmx."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from hyper2kvmd.disk.file_names import family, last_part, same_name
from hyper2kvmd.model.disks import LocalFile
from hyper2kvmd.model.machine import DiskAddress, MachineDisk

FILE = re.compile(r"((scsi|sata|nvme|ide)(\d{1,2}):(\d{1,3}))\.filename")
SLOT = re.compile(r"\d{1,5}")


def with_addresses(disks: tuple[MachineDisk, ...], settings: Mapping[str, str]) -> tuple[MachineDisk, ...]:
    """`disks` with the addresses of those that `settings` name, by file or by snapshot chain."""
    places = tuple(_places(settings))
    return tuple(
        disk.with_changes(address=_place_of(disk.at.path.name, places)) if isinstance(disk.at, LocalFile) else disk
        for disk in disks
    )


def _places(settings: Mapping[str, str]) -> Iterator[tuple[str, DiskAddress]]:
    for key, value in settings.items():
        match = FILE.fullmatch(key)
        if match and settings.get(f"{match[1]}.present", "TRUE").upper() == "TRUE":
            slot = settings.get(f"{match[2]}{match[3]}.pcislotnumber", "")
            yield (
                last_part(value),
                DiskAddress.model_validate(
                    {
                        "bus": match[2],
                        "controller": int(match[3]),
                        "unit": int(match[4]),
                        "slot": int(slot) if SLOT.fullmatch(slot) else None,
                    }
                ),
            )


def _place_of(name: str, places: Sequence[tuple[str, DiskAddress]]) -> DiskAddress | None:
    for same in (str.__eq__, same_name, _same_chain):
        found = [address for file, address in places if same(file, name)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _same_chain(one: str, other: str) -> bool:
    return same_name(family(one), family(other))
