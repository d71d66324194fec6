"""A Debian 12 guest on a GPT disk with an EFI system partition, as VMware's UEFI firmware starts it.

A recipe furnishes it with a boot loader. It names its disk `/dev/sda*`, and its initramfs holds VMware's drivers
alone. The partition is filled by mtools: not every kernel has FAT.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.guests.build import MIB, Disk, Part, Root, make, mount, run
from tests.guests.guest import Guest

SIZE = 2048 * MIB
ESP = 64 * MIB
PACKAGES = (
    *("linux-image-cloud-amd64", "systemd-sysv", "udev", "initramfs-tools", "login", "passwd", "kmod"),
    *("grub-efi-amd64-bin", "grub2-common", "shim-signed", "grub-efi-amd64-signed", "systemd-boot", "binutils"),
)
"""Of every recipe, so that they share what takes longest."""
Furnish = Callable[[Root, Part], None]
"""Fills /boot/efi, which becomes the EFI system partition; the part holds the root file system."""


def efi_guest(name: str, recipe: Path, furnish: Furnish, esp_size: int = ESP) -> Guest:
    return Guest(name, recipe, partial(_build, furnish, esp_size), PACKAGES)


def _build(furnish: Furnish, esp_size: int, disk: Disk) -> None:
    wanted = (("/dev/sda1", esp_size, "uefi"), ("/dev/sda2", 0, "linux"))
    esp, root = disk.partition(SIZE, *wanted, label="gpt")
    make(root, "ext4")
    where = f"{disk.raw}@@{esp.offset}"
    run("mformat", "-i", where, "-F", "-T", str(esp.size // 512), "-h64", "-s32", "::")
    with disk.root({"/": root}) as files, contextlib.ExitStack() as undo:
        place = files.path / "boot/efi"
        place.mkdir()
        mount(undo, place, "-t", "tmpfs", "tmpfs")
        files.settle("/dev/sda2 / ext4 errors=remount-ro 0 1", "/dev/sda1 /boot/efi vfat umask=0077,nofail 0 1")
        files.initramfs("none", "ext4")
        furnish(files, root)
        for entry in sorted(place.iterdir()):
            run("mcopy", "-s", "-i", where, entry, "::/")
