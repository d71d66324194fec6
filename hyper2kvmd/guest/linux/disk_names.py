"""Names of disks and partitions that depend on hardware: the kernel's, udev's links by path and serial number, and
multipath maps.

Sources: the kernel's devices.txt; udev's 60-persistent-storage.rules; multipath.conf(5) and kpartx(8), which add
`1`, `p1`, `_part1` or `-part1` to the name of a map; VMware's knowledge base on `disk.EnableUUID`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

Group = Literal["kernel", "builder", "map", "path", "serial", "id"]
LETTERS = re.compile(r"(sd|hd|vd|xvd)([a-z]{1,4})(\d{0,9})")
NVME = re.compile(r"nvme(\d{1,9})n(\d{1,9})(?:p(\d{1,9}))?")
COUNTED = re.compile(r"(mmcblk)(\d{1,9})(?:p(\d{1,9}))?")
CONTROLLED = re.compile(r"((?:cciss|ida|rd)/c\d{1,9})d(\d{1,9})(?:p(\d{1,9}))?")
BUILDERS = re.compile(r"(?:mapper/)?((?:loop|nbd)\d{1,9})(?:p(\d{1,9}))?")
"""Devices of the machine on which an image was built."""
OTHER_MAPS = re.compile(r"((?:emcpower|vpath|sddlm)[a-z]{1,3})(\d{0,9})")
"""PowerPath, IBM's SDD, Hitachi's HDLM."""
MULTIPATH = re.compile(
    r"mapper/(?:(mpath[a-z]{1,3}?|3[0-9a-f]{32})(?:(?:-part|_part|p)?(\d{1,9}))?|(mpath\d{1,9})(?:(?:-part|_part|p)(\d{1,9}))?)"
)
MAP_UUID = re.compile(r"disk/by-id/dm-uuid-(?:part(\d{1,9})-)?mpath-(.+)")
MAP_NAME = "disk/by-id/dm-name-"
LINK = re.compile(r"disk/by-(path|id|diskseq|dname)/(.+?)(?:-part(\d{1,9}))?")
OF_CONTENT = ("dm-", "md-", "lvm-")
"""Links in by-id that are derived from the content of a disk."""
SERIAL = re.compile(r"(?<![0-9a-f])3?(6[0-9a-f]{31})(?![0-9a-f])")
"""A WWID of VMware's: NAA type 6, which VMware derives from the disk's `ddb.uuid`."""
PLACE = re.compile(r"(.*pci-[0-9a-f:.]+)-(scsi-\d+:\d+:|ata-|nvme-)(\d{1,9})(?:\.(\d))?(?::0)?")
VMWARE_NVME = re.compile(r"(nvme-VMware_Virtual_NVMe_Disk_VMware_NVME_\d{4})_([1-9]\d{0,8})")
"""The last number is that of the namespace."""
BINDING = re.compile(r"^[ \t]*([^\s#]+)[ \t]+([0-9A-Za-z_.:-]+)", re.MULTILINE)
SECTION = re.compile(r"\bmultipath\s*\{([^{}]*)\}")
SETTING = re.compile(r"^[ \t]*(wwid|alias)[ \t]+\"?([^\s\"]+)\"?", re.MULTILINE)
MAX_MAPS = 1024
"""Multipath maps of a guest that count: every name of a disk is compared with each."""
RESERVED_TARGET = 7
"""The SCSI target of the controller itself."""


@dataclass(frozen=True)
class DiskName:
    """A disk by a name that depends on hardware, or one of its partitions. Names of one group are different disks."""

    group: Group
    name: str
    """Of the whole disk: `sda`, `nvme0n2`, `pci-0000:03:00.0-scsi-0:0:1:0`, `mpatha`, a WWID."""
    number: int | None = None
    """Of the partition; None for the whole disk."""
    family: str = ""
    """Names of one family count the same disks: `sd`, `nvme0`, the link of one controller."""
    index: int | None = None
    """The place in the family, from 0; None if the name has no order."""


def multipath_serials(bindings: Iterable[str], config: str) -> dict[str, str]:
    """Names of multipath maps and their WWIDs, from `bindings` files and multipath.conf."""
    found = {match[1]: match[2] for text in bindings for match in BINDING.finditer(text)}
    for section in SECTION.finditer(config):
        settings = dict(SETTING.findall(section[1]))
        if "alias" in settings and "wwid" in settings:
            found[settings["alias"]] = settings["wwid"]
    return dict(islice(found.items(), MAX_MAPS))


def parse(spec: str, maps: Mapping[str, str] | None = None) -> DiskName | None:
    """The disk of a path below /dev; None for a name that does not depend on hardware.

    `maps` are names of multipath maps and their WWIDs.
    """
    if not spec.startswith("/dev/"):
        return None
    name = spec.removeprefix("/dev/")
    return _of_kernel(name) or _of_map(name, maps or {}) or _of_link(name)


def _of_kernel(name: str) -> DiskName | None:
    if match := LETTERS.fullmatch(name):
        return DiskName("kernel", match[1] + match[2], _number(match[3]), match[1], letters_to_index(match[2]))
    if match := NVME.fullmatch(name):
        disk = f"nvme{match[1]}n{match[2]}"
        return DiskName("kernel", disk, _number(match[3]), f"nvme{match[1]}", int(match[2]) - 1)
    if (match := COUNTED.fullmatch(name)) or (match := CONTROLLED.fullmatch(name)):
        disk = name.removesuffix(f"p{match[3]}") if match[3] else name
        return DiskName("kernel", disk, _number(match[3]), match[1], int(match[2]))
    if match := BUILDERS.fullmatch(name):
        return DiskName("builder", match[1], _number(match[2]))
    return None


def _of_map(name: str, maps: Mapping[str, str]) -> DiskName | None:
    if name.startswith(MAP_NAME):
        name = "mapper/" + name.removeprefix(MAP_NAME)
    if match := MAP_UUID.fullmatch(name):
        return _by_serial(match[2], _number(match[1])) or DiskName("map", match[2], _number(match[1]))
    if match := OTHER_MAPS.fullmatch(name):
        return DiskName("map", match[1], _number(match[2]))
    for alias, wwid in maps.items():
        if not name.startswith(f"mapper/{alias}"):
            continue
        match = re.fullmatch(rf"mapper/{re.escape(alias)}(?:(?:-part|_part|p)?(\d{{1,9}}))?", name)
        if match and not (alias[-1].isdigit() and name[len(f"mapper/{alias}") :][:1].isdigit()):
            return _by_serial(wwid, _number(match[1])) or DiskName("map", alias, _number(match[1]))
    match = MULTIPATH.fullmatch(name)
    if match is None:
        return None
    disk, number = match[1] or match[3], _number(match[2] or match[4])
    return _by_serial(disk, number) or DiskName("map", disk, number)


def _of_link(name: str) -> DiskName | None:
    match = LINK.fullmatch(name)
    if match is None or (match[1] == "id" and match[2].startswith(OF_CONTENT)):
        return None
    number = _number(match[3])
    if match[1] == "path":
        return _by_path(match[2], number)
    return _by_serial(match[2], number) or _by_id(match[2], number)


def _by_serial(text: str, number: int | None) -> DiskName | None:
    match = SERIAL.search(text.lower())
    return DiskName("serial", match[1], number) if match else None


def _by_id(link: str, number: int | None) -> DiskName:
    match = VMWARE_NVME.fullmatch(link)
    return DiskName("id", link, number, match[1], int(match[2]) - 1) if match else DiskName("id", link, number)


def _by_path(link: str, number: int | None) -> DiskName:
    match = PLACE.fullmatch(link)
    if match is None:
        return DiskName("path", link, number)
    unit = int(match[3])
    if match[2] != "ata-":
        index = unit - 1 if match[2] == "nvme-" or unit > RESERVED_TARGET else unit
        return DiskName("path", link, number, f"{match[1]}-{match[2]}", index)
    slave = int(match[4] or 0)  # IDE: a port has two disks; SATA: one, with or without `.0`
    plain = link if slave else link.removesuffix(".0")
    return DiskName("path", plain, number, f"{match[1]}-ata-", None if slave else unit - 1)


def _number(digits: str | None) -> int | None:
    return int(digits) if digits else None


def letters_to_index(letters: str) -> int:
    """a is 0, z is 25, aa is 26."""
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1
