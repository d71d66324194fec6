"""Proxmox VE as a target: a shell script for one of its nodes, which imports the images with `qm create`.

Sources: qm(1), and the chapter "QEMU/KVM Virtual Machines" of its administration guide.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware, Plan
from hyper2kvmd.targets.machine_files import Form, NewMachine
from hyper2kvmd.targets.shell import BEGIN, PRELUDE, command, one_line, script, word

BRIDGE = "vmbr0"
"""Proxmox VE's first bridge, for networks that are not mapped."""
BUS_DISKS = {"virtio": 16, "scsi": 31, "sata": 6}
"""Disks that a machine can have on a bus. Further ones are on the SCSI controller."""
CD_DRIVES = ("ide2", "ide0")
WINDOWS_TYPES = (
    (re.compile(r"\b(11|2022|2025)\b"), "win11"),
    (re.compile(r"\b(10|2016|2019)\b"), "win10"),
    (re.compile(r"\b(8|8\.1|2012)\b"), "win8"),
    (re.compile(r"\b(7|2008 R2)\b"), "win7"),
)
"""The values of `ostype` for names of Windows."""

HEAD = """
#!/bin/sh
# {description}
#
# Usage, as root on a node of Proxmox VE, with the images in the directory of this script:
#   sh {name}.proxmox.sh [--dry-run] ID STORAGE
#     --dry-run   print the command, run nothing
#     ID          number of the new machine; `pvesh get /cluster/nextid` shows a free one
#     STORAGE     storage for its disks, such as local-lvm
# Environment:
#   CPU           its CPU type; default: host
"""
ARGUMENTS = """
[ "$#" -eq 2 ] || fail 'Usage: sh {name}.proxmox.sh [--dry-run] ID STORAGE'
id=$1
storage=$2
images=$(pwd)
case $images in
*,*) fail "$images: qm cannot import from a directory with a comma in its name. Rename it." ;;
esac
"""


def import_script(machine: NewMachine) -> str:
    """The script that creates the machine. `qm` refuses an ID that is taken."""
    head = HEAD.format(description=one_line(machine.description), name=machine.name)
    return script(
        head, PRELUDE, ARGUMENTS.format(name=machine.name), BEGIN, command(['run qm create "$id"', *_options(machine)])
    )


def _options(machine: NewMachine) -> Iterator[str]:
    """Options of `qm create` as shell text."""
    hardware = machine.hardware
    yield f"--name {_dns_name(machine.name)}"
    yield f"--ostype {_os_type(machine.guest)}"
    yield f"--machine {hardware.machine}"
    yield '--cpu "${CPU:-host}"'
    yield f"--sockets {hardware.sockets or 1} --cores {hardware.cores_per_socket or hardware.vcpus}"
    yield f"--memory {hardware.memory}"
    yield f"--localtime {int(hardware.rtc == 'localtime')}"
    yield from _firmware(hardware)
    yield from _identity(hardware)
    yield "--scsihw virtio-scsi-single"
    places = [_place(hardware, number) for number in range(len(machine.disks))]
    for place, disk in zip(places, machine.disks, strict=True):
        yield f'--{place} "$storage:0,import-from=$images/"{disk.path.name},discard=on'
    yield f"--boot order={places[hardware.boot_disk]}"
    for number, nic in enumerate(hardware.nics):
        bridge = (nic.network or BRIDGE).removeprefix("bridge:")
        link = "" if nic.connected else ",link_down=1"
        yield f"--net{number} {word(f'{hardware.nic_model}={nic.mac.upper()},bridge={bridge}{link}')}"
    for drive in CD_DRIVES[: hardware.cdroms]:
        yield f"--{drive} none,media=cdrom"
    yield "--vga std --serial0 socket"
    if "agent" in hardware.extras:
        yield "--agent enabled=1"
    if "balloon" not in hardware.extras:
        yield "--balloon 0"
    if "rng" in hardware.extras:
        yield "--rng0 source=/dev/urandom"


def _firmware(hardware: Hardware) -> Iterator[str]:
    if hardware.firmware == "uefi":
        yield "--bios ovmf"
        yield f'--efidisk0 "$storage:1,efitype=4m,pre-enrolled-keys={int(hardware.secure_boot)}"'
    if hardware.tpm:
        yield '--tpmstate0 "$storage:1,version=v2.0"'


def _identity(hardware: Hardware) -> Iterator[str]:
    """A serial number can have any character, which only base64 can express."""
    if hardware.serial:
        serial = base64.b64encode(hardware.serial.encode()).decode()
        uuid = f"uuid={hardware.uuid}," if hardware.uuid else ""
        yield f"--smbios1 {word(f'{uuid}base64=1,serial={serial}')}"
    elif hardware.uuid:
        yield f"--smbios1 uuid={hardware.uuid}"
    if hardware.genid:
        yield f"--vmgenid {hardware.genid}"


def _place(hardware: Hardware, number: int) -> str:
    most = BUS_DISKS[hardware.disk_bus]
    return f"{hardware.disk_bus}{number}" if number < most else f"scsi{number - most}"


def _dns_name(name: str) -> str:
    """Proxmox VE's names are DNS names."""
    return ".".join(label for part in name.split(".") if (label := part.replace("_", "-").strip("-")))


def _os_type(guest: Guest) -> str:
    if guest.family == "linux":
        return "l26"
    found = (kind for pattern, kind in WINDOWS_TYPES if pattern.search(guest.os_name))
    return next(found, "other") if guest.family == "windows" else "other"


def _examine(migration: Migration, plan: Plan) -> Iterator[Concern]:
    name = _dns_name(migration.vm_name)
    if name != migration.vm_name:
        yield Concern(
            code="name-changed",
            message=f"{migration.vm_name} is not a valid name in Proxmox VE: the machine's name there is {name}",
            hint="Set vm_name to letters, digits, and hyphens inside if you want another one",
        )
    fewest = min(BUS_DISKS.values())
    if len(plan.disks) > fewest:
        most = " or ".join(f"{count} {bus} disks" for bus, count in BUS_DISKS.items())
        yield Concern(
            code="bus-full",
            message=f"{migration.vm_name} has {len(plan.disks)} disks, and a machine of Proxmox VE has at most {most}",
            hint="Check that the guest has a driver for VirtIO SCSI, to which the others are attached",
        )


PROXMOX = Form({".proxmox.sh": import_script}, _examine)
