"""LVM's devices file: the list of disks that it may use.

Looks for entries that identify a disk by a serial number or WWID of the hypervisor: LVM uses only the disks in that
file, and finds no volume on the new ones. Removes the file; without it, LVM uses every disk
(`vgimportdevices --all` makes a new one). Source: lvmdevices(8).
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, always, regular_files

DEVICES_FOLDER = "/etc/lvm/devices"
OF_THE_HARDWARE = re.compile(r"^[^#\n]*\bIDTYPE=(?!loop_file|crypt_uuid|md_uuid|lvmlv_uuid)", re.MULTILINE)


def is_devices_file(path: str) -> bool:
    return path.startswith(f"{DEVICES_FOLDER}/") and path.endswith(".devices")


def is_stale(path: str, text: str) -> bool:
    """Whether `path` is a devices file that keeps LVM from using the disks of the new machine."""
    return is_devices_file(path) and OF_THE_HARDWARE.search(text) is not None


def apply(case: Case) -> list[str]:
    for path in regular_files(case, f"{DEVICES_FOLDER}/*.devices"):
        if is_stale(path, case.tree.read_text(path)):
            case.tree.remove(path, fix=FIX.name, summary="removed: it limits LVM to disks of the old machine")
    return []


FIX = Fix("lvm-devices", required=True, wanted=always, apply=apply)
