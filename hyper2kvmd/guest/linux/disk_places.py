"""Names of disks that contain the disk's address on VMware: NVMe namespaces, by-path links, and some by-id links.

Source: names in kernel logs of VMware guests. All disks of one virtual NVMe controller are its namespaces. Disks on IDE
and SATA have the serial numbers 00000000000000000001, 01000000000000000001 and so on: controller and unit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hyper2kvmd.guest.linux.disk_names import DiskName
from hyper2kvmd.model.machine import DiskAddress, DiskIdentity

NVME = re.compile(r"nvme(\d{1,9})n(\d{1,9})")
LINK = re.compile(
    r"(?:.*-)?pci-0000:([0-9a-f]{2}):([0-9a-f]{2})\.0-(scsi-\d+:\d+:|ata-|nvme-)(\d{1,9})(?:\.\d)?(?::0)?"
)
ATA_SERIAL = re.compile(r"(?:ata-|scsi-[01]ATA_|scsi-SATA_)VMware_Virtual(_IDE|_SATA|_[IS])?[A-Za-z_]*_(\d)(\d)0{17}1")
NVME_SERIAL = re.compile(r"nvme-VMware_Virtual_NVMe_Disk_VMware_NVME_(\d{4})_(\d{1,9})")
FIRST_SLOT, FIRST_BUS, SLOTS_APART, BUSES_APART = 160, 3, 32, 8
"""PCI Express slots 160, 192, 224, 256 are the buses 03, 0b, 13, 1b in VMware guests."""
BUSES = {"scsi-": ("scsi",), "ata-": ("sata",), "nvme-": ("nvme",)}


def place_of(name: DiskName, identity: DiskIdentity, all_of_them: Sequence[DiskIdentity]) -> bool:
    """Whether `name` is the address of the disk with this identity."""
    address = identity.address
    if address is None:
        return False
    if match := NVME.fullmatch(name.name) or NVME_SERIAL.fullmatch(name.name):
        return address.bus == "nvme" and (address.controller, address.unit) == (int(match[1]), int(match[2]) - 1)
    if match := ATA_SERIAL.fullmatch(name.name):
        return _is_ata(match, address, all_of_them)
    match = LINK.fullmatch(name.name) if name.group == "path" else None
    if match is None or address.bus not in BUSES[match[3].split("-")[0] + "-"]:
        return False
    unit = int(match[4]) - (0 if match[3].startswith("scsi") else 1)
    if unit != address.unit:
        return False
    peers = {one.address.controller for one in all_of_them if one.address and one.address.bus == address.bus}
    return len(peers) == 1 or _slot(int(match[1], 16), int(match[2], 16)) == _known_slot(address)


def _is_ata(match: re.Match[str], address: DiskAddress, all_of_them: Sequence[DiskIdentity]) -> bool:
    """The digit of the controller is known of IDE only: SATA disks must all have the same one."""
    kind, controller, unit = (match[1] or "")[:2], int(match[2]), int(match[3])
    if address.bus == "ide":
        return kind in ("_I", "") and (address.controller, address.unit) == (controller, unit)
    others = {one.address.controller for one in all_of_them if one.address and one.address.bus == "sata"}
    return address.bus == "sata" and kind in ("_S", "") and len(others) == 1 and (controller, unit) == (0, address.unit)


def _slot(bus: int, device: int) -> int | None:
    """VMware's slot number of a PCI place: the device on the first bus, or a PCI Express port."""
    if bus == 0:
        return device
    steps, rest = divmod(bus - FIRST_BUS, BUSES_APART)
    return None if rest or device else FIRST_SLOT + steps * SLOTS_APART


def _known_slot(address: DiskAddress) -> int:
    """-1 if it is unknown, which no place has."""
    return -1 if address.slot is None else address.slot
