"""GRUB's device.map: the BIOS disks and their devices on the old machine.

GRUB 2 finds the disks by itself, but a stale /boot/grub*/device.map can direct the guest's next grub-install to a
missing disk, so it is removed. GRUB legacy's tools read partition numbers through it, so there the disks get their
names on KVM.
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.linux.devices import virtio_disk
from hyper2kvmd.guest.linux.fixes.fix import (
    Case,
    Fix,
    Mended,
    mend_files,
    regular_files,
    unless_no_grub,
)

ENTRY = re.compile(r"^([ \t]*\(hd(\d{1,3})\)[ \t]+)(/dev/\S+)", re.MULTILINE)
LEGACY = ("/boot/grub/menu.lst", "/boot/grub/grub.conf")


def mend_legacy(case: Case, text: str, _: str) -> Mended:
    done = []
    entries = [(int(match[2]), case.devices.whole_disk(match[3])) for match in ENTRY.finditer(text)]
    known = {number: disk for number, disk in entries if disk is not None}
    if len(known) != len(entries) or len(set(known.values())) != len(known):
        known = {}  # the firmware's order is the best guess

    def exchange(match: re.Match[str]) -> str:
        name = virtio_disk(known.get(int(match[2]), int(match[2])))
        if not case.devices.is_unstable(match[3]) or match[3] == name:
            return match[0]
        done.append(f"(hd{match[2]}) is {name}")
        return match[1] + name

    return Mended(ENTRY.sub(exchange, text), ", ".join(done))


def apply(case: Case) -> list[str]:
    if "grub2" not in case.system.boot_loaders and regular_files(case, *LEGACY):
        return mend_files(case, FIX.name, mend_legacy, "/boot/grub/device.map")
    for path in regular_files(case, "/boot/grub/device.map", "/boot/grub2/device.map"):
        case.tree.remove(path, fix=FIX.name, summary="removed: it names disks of the old machine")
    return []


FIX = Fix("device-map", required=False, wanted=unless_no_grub, apply=apply)
