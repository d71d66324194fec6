"""The drives on the buses of a machine: hard disks in the order in which its firmware tries them, CD-ROMs, floppies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hyper2kvmd.disk.file_names import last_part
from hyper2kvmd.machines.vmx.hardware import is_whole
from hyper2kvmd.machines.vmx.places import address_of
from hyper2kvmd.machines.vmx.settings import Settings
from hyper2kvmd.model.machine import DiskAddress

BUSES = ("scsi", "nvme", "sata", "ide")
"""In the order in which the disks are listed, unless `bios.hddOrder` says otherwise. Then by controller and unit."""
DRIVE = re.compile(r"([a-z]+[0-9]+:[0-9]+)\.[a-z0-9_.]+")
FLOPPIES = ("floppy0", "floppy1")
NO_FILE = ("", "emptybackingstring", "auto detect")
"""File names of drives without a medium, or with one of the host."""
DISK_TYPES = ("disk", "plaindisk", "rawdisk")
Kind = Literal["disk", "cdrom", "other"]


@dataclass(frozen=True)
class Drive:
    name: str
    """`scsi0:1`."""
    address: DiskAddress
    kind: Kind
    file: str
    """As the .vmx spells it."""
    mode: str = ""
    """In lower case: `persistent`, `independent-persistent` and so on."""
    is_certain: bool = True
    """Whether the .vmx says that it is present."""

    @property
    def is_independent(self) -> bool:
        """Whether snapshots leave it out."""
        return self.mode.startswith("independent")


def read_drives(settings: Settings) -> tuple[Drive, ...]:
    """The present drives; the disks among them in boot order."""
    names = {match[1] for match in map(DRIVE.fullmatch, settings.values) if match}
    drives = [drive for name in names if (drive := _drive(settings, name)) is not None]
    order = boot_order(settings)
    return tuple(sorted(drives, key=lambda drive: place(drive.address, drive.name, order)))


def boot_order(settings: Settings) -> tuple[str, ...]:
    """The disks that the machine's firmware is told to try first: `scsi0:1`."""
    return tuple(word.strip().lower() for word in settings.text("bios.hddorder").split(","))


def place(address: DiskAddress, name: str, order: Sequence[str]) -> tuple[int, int, int, int]:
    """The key by which disks are sorted."""
    rank = order.index(name) if name in order else len(order)
    return rank, BUSES.index(address.bus), address.controller, address.unit


def floppies_of(settings: Settings) -> int:
    """How many floppy drives there are. VMware adds the first one to a machine whose .vmx does not mention it."""
    return sum(
        settings.flag(f"{name}.present", default=name == FLOPPIES[0] and is_whole(settings)) for name in FLOPPIES
    )


def _drive(settings: Settings, name: str) -> Drive | None:
    """None if it or its controller was removed, or if nothing but leftovers of it are in the .vmx."""
    address = address_of(name, settings)
    controller = name.partition(":")[0]
    if address is None or not settings.flag(f"{controller}.present", default=True):
        return None
    file, says = settings.text(f"{name}.filename"), settings.text(f"{name}.present")
    if not settings.flag(f"{name}.present", default=bool(file)):
        return None
    return Drive(
        name,
        address,
        _kind(settings.text(f"{name}.devicetype").lower(), file),
        file,
        settings.text(f"{name}.mode").lower(),
        is_certain=bool(says),
    )


def _kind(device_type: str, file: str) -> Kind:
    """Source: libvirt, virVMXParseDisk; virt-v2v, find_hdds."""
    name = last_part(file).lower()
    if "cdrom" in device_type or name.endswith(".iso") or "/cdrom/" in file.lower():
        return "cdrom"
    if device_type in DISK_TYPES or device_type.endswith("-harddisk"):
        return "disk"
    if name in NO_FILE and not device_type:
        return "cdrom"
    return "disk" if name.endswith(".vmdk") else "other"
