"""GRUB's device.map: which BIOS disk was which device on the old machine.

Looks for /boot/grub*/device.map and removes it. GRUB finds the disks by itself, and only a stale map can send the
guest's next grub-install to a disk that is not there.
"""

from __future__ import annotations

from hyper2kvmd.guest.fixes.fix import Case, Fix, regular_files, unless_no_grub


def apply(case: Case) -> list[str]:
    for path in regular_files(case, "/boot/grub/device.map", "/boot/grub2/device.map"):
        case.tree.remove(path, fix=FIX.name, summary="removed: it names disks of the old machine")
    return []


FIX = Fix("device-map", required=False, wanted=unless_no_grub, apply=apply)
