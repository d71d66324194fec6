"""Debian 12 that extlinux boots: no GRUB, `root=/dev/sda1` on its append lines."""

from __future__ import annotations

from pathlib import Path

from tests.guests.build import CONSOLE, DEBIAN, Disk, make
from tests.guests.guest import Guest
from tests.guests.installer import CDROM, INITRAMFS_FILES, SIZE, SWAP

PACKAGES = (*(name for name in DEBIAN if name != "grub-pc"), "initramfs-tools", "extlinux", "syslinux-common")
READABLE = ("-O", "^64bit,^metadata_csum,^metadata_csum_seed,^orphan_file")
"""By syslinux 6.04."""
CONFIGURATION = "/boot/extlinux/extlinux.conf"


def build(disk: Disk) -> None:
    root, swap = disk.partition(SIZE, ("/dev/sda1", 0, "L"), ("/dev/sda5", SWAP, "S"))
    make(root, "ext4", *READABLE)
    make(swap, "swap")
    with disk.root({"/": root}) as files:
        files.settle(f"{root.device} / ext4 errors=remount-ro 0 1", f"{swap.device} none swap sw 0 0", CDROM)
        files.initramfs(swap.device, "ext4")
        (version,) = files.kernels
        lines = ("default linux", "prompt 0", "serial 0 115200", "label linux", f"  kernel /boot/vmlinuz-{version}")
        append = f"  append initrd=/boot/initrd.img-{version} root={root.device} ro resume={swap.device} {CONSOLE}"
        files.write({CONFIGURATION: "\n".join((*lines, append))})
        files.run("extlinux", "--install", "/boot/extlinux")
        with disk.raw.open("r+b") as file:
            file.write((files.path / "usr/lib/EXTLINUX/mbr.bin").read_bytes())


MENDED = frozenset(("/etc/fstab", CONFIGURATION, *INITRAMFS_FILES))
GUEST = Guest("extlinux", Path(__file__), build, PACKAGES, mended=MENDED)
