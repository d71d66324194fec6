"""Debian 12, broken the way a guest that leaves VMware is, in the shapes that most tests use.

The broken guest boots from VMware's own disk controller (pvscsi) or IDE and names its disks by `/dev/sda*`: in
fstab, in GRUB and as resume device. Its initramfs holds nothing of virtio, so on KVM it stops at the initramfs
shell. With `broken=False` the same guest uses UUIDs and a general initramfs, and boots anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.guests import guest
from tests.guests.build import MIB, Disk, Part, Root, make, run
from tests.guests.guest import Firmware, Guest
from tests.guests.guest import Subformat as Subformat
from tests.guests.installer import BOOT, MENDED, PACKAGES, SIZE, SWAP, install, one_root

ESP = 64 * MIB
DEBIAN12 = (*PACKAGES, "lvm2", "grub-efi-amd64-bin")


@dataclass(frozen=True)
class Recipe:
    broken: bool = True
    lvm: bool = False
    """Root and swap are logical volumes of `vg0`; /boot is a partition."""
    firmware: Firmware = "bios"

    @property
    def guest(self) -> Guest:
        words = ("debian12", "lvm" * self.lvm, "uefi" * (self.firmware == "uefi"), "healthy" * (not self.broken))
        name = "-".join(filter(None, words))
        return Guest(name, Path(__file__), self._build, DEBIAN12, mended=MENDED if self.broken else frozenset())

    def _build(self, disk: Disk) -> None:
        parts = _volumes(disk) if self.lvm else _with_esp(disk) if self.firmware == "uefi" else one_root(disk)
        mounts = {point: part for point, part in parts.items() if point in ("/", "/boot")}
        with disk.root(mounts) as files:
            install(files, parts, broken=self.broken)
            if self.firmware == "uefi":
                _boot_by_uefi(disk, files, parts)
            elif self.lvm:
                files.boot_by_grub(disk, parts["/boot"], "/grub")
            else:
                files.boot_by_grub(disk, parts["/"])


def _volumes(disk: Disk) -> dict[str, Part]:
    boot, pv = disk.partition(SIZE, ("/dev/sda1", BOOT, "L"), ("/dev/sda2", 0, "lvm"))
    root, swap = disk.volumes(pv, "vg0", SWAP)
    for part in (root, boot):
        make(part, "ext4")
    make(swap, "swap")
    return {"/": root, "/boot": boot, "swap": swap}


def _with_esp(disk: Disk) -> dict[str, Part]:
    wanted = (("/dev/sda1", ESP, "uefi"), ("/dev/sda2", 0, "linux"), ("/dev/sda3", SWAP, "swap"))
    esp, root, swap = disk.partition(SIZE, *wanted, label="gpt")
    for part, kind in ((esp, "vfat"), (root, "ext4"), (swap, "swap")):
        make(part, kind)
    return {"/": root, "/boot/efi": esp, "swap": swap}


def _boot_by_uefi(disk: Disk, files: Root, parts: dict[str, Part]) -> None:
    (files.path / "boot/efi").mkdir()
    core = files.grub_image("x86_64-efi", parts["/"], "/boot/grub", "ext2")
    place = f"{disk.raw}@@{parts['/boot/efi'].offset}"
    run("mmd", "-i", place, "::/EFI", "::/EFI/BOOT", "::/EFI/debian")
    for name in ("BOOT/BOOTX64.EFI", "debian/grubx64.efi"):
        run("mcopy", "-i", place, core, f"::/EFI/{name}")


def disk(recipe: Recipe = Recipe()) -> Path:
    return guest.disk(recipe.guest)


def vmdk(recipe: Recipe = Recipe(), subformat: Subformat = "streamOptimized") -> Path:
    return guest.vmdk(recipe.guest, subformat)
