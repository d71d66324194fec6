"""Decides how the new machine starts: its firmware, and the disk that it boots from.

The migration decides, else the source machine's description, else the boot code on the disks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import BootCode, Layout
from hyper2kvmd.model.machine import Firmware

RANKS: dict[BootCode, int] = {"none": 0, "code": 1, "loader": 2}
LIST_IT_FIRST = "List the boot disk first in `vmdk:`, or in `bios.hddOrder` of the `.vmx`"


@dataclass(frozen=True)
class BootDisk:
    """`number` counts from 0."""

    number: int
    warnings: tuple[str, ...] = ()


def firmware_of(layout: Layout) -> Firmware:
    """`uefi` for a machine with a boot loader on an EFI system partition, else `bios`."""
    return "uefi" if any(volume.efi_loader for volume in layout.volumes) else "bios"


def decide_firmware(
    asked: bool | None, described: Firmware | None, layout: Layout
) -> tuple[Firmware, tuple[Concern, ...]]:
    """The firmware, and concerns. `described` is the source machine's, None if unknown.

    A description is not followed if the disks can be started by the other firmware only.
    """
    empty = tuple(
        f"{volume.name} is an EFI system partition without a boot loader ({volume.content})"
        for volume in layout.volumes
        if volume.is_esp and not volume.efi_loader
    )
    if asked is not None:
        return ("uefi" if asked else "bios"), ()
    by_bios, by_uefi = any(code != "none" for code in layout.boot_code), firmware_of(layout) == "uefi"
    if described == "bios" and by_uefi and layout.boot_code and not by_bios:
        fact = "the source machine has BIOS, but its disks have only a boot loader for UEFI: the new machine gets UEFI"
        differs = Concern(code="firmware-differs", message=fact, hint="Set uefi: false if the machine must have BIOS")
        return "uefi", (*(_no_loader(one) for one in empty), differs)
    firmware = described or firmware_of(layout)
    if not empty or firmware == "uefi":
        return firmware, tuple(_no_loader(fact) for fact in empty)
    hint = "Set uefi: true if the machine must have UEFI"
    return firmware, tuple(_no_loader(f"{fact}: the new machine gets BIOS", hint) for fact in empty)


def _no_loader(fact: str, hint: str = "") -> Concern:
    return Concern(code="loader-missing", message=fact, hint=hint)


def decide_boot_disk(layout: Layout, firmware: Firmware, system: Collection[int]) -> BootDisk:
    """The first disk unless only another one can be started; `system` are the disks with the guest's boot files."""
    disks = range(len(layout.tables))
    if firmware == "uefi":
        ranks = [int(any(one.efi_loader and one.disk == disk for one in layout.volumes)) for disk in disks]
    else:
        ranks = [RANKS[code] for code in layout.boot_code] or [0 for _ in disks]
    best = max(ranks, default=0)
    if best == 0:
        return BootDisk(_of_the_system(system), _nothing_to_start(firmware, layout))
    able = [disk for disk in disks if ranks[disk] == best]
    number = able[0] if 0 in able else next((disk for disk in able if disk in system), able[0])
    if number != 0:
        kind = "boot loader for UEFI" if firmware == "uefi" else "boot code"
        other = (
            f"the machine boots from disk {number + 1}: disk 1 has no {kind}"
            if ranks[0] == 0
            else (f"the machine boots from disk {number + 1}, which has a boot loader; disk 1 has other boot code")
        )
        return BootDisk(number, (f"{other}. {LIST_IT_FIRST}.",))
    elsewhere = [disk for disk in able[1:] if disk in system]
    if system and 0 not in system and elsewhere:
        fact = (
            f"disk 1 and disk {elsewhere[0] + 1} both have a boot loader, and the system is on disk {elsewhere[0] + 1}"
        )
        return BootDisk(0, (f"{fact}: the machine boots from disk 1. {LIST_IT_FIRST}.",))
    return BootDisk(0)


def _of_the_system(system: Collection[int]) -> int:
    return min(system, default=0)


def _nothing_to_start(firmware: Firmware, layout: Layout) -> tuple[str, ...]:
    if firmware == "uefi":
        return ("no disk has an EFI system partition with a boot loader: the machine's UEFI firmware cannot start it",)
    if not layout.boot_code:
        return ()
    return ("no disk has boot code in its first sector: the machine's BIOS cannot start it",)
