"""Debian 12 on two disks: the second one holds data, and fstab waits for its /dev/sdb1."""

from __future__ import annotations

from pathlib import Path

from tests.guests.build import MIB, Disk, make
from tests.guests.guest import Guest
from tests.guests.installer import CDROM, MENDED, PACKAGES, one_root

DATA = 256 * MIB


def build(disk: Disk) -> None:
    parts = one_root(disk)
    root, swap = parts["/"], parts["swap"]
    (data,) = disk.second().partition(DATA, ("/dev/sdb1", 0, "L"))
    make(data, "ext4")
    fstab = (f"{root.device} / ext4 errors=remount-ro 0 1", f"{data.device} /srv ext4 defaults 0 2")
    with disk.root({"/": root, "/srv": data}) as files:
        files.settle(*fstab, f"{swap.device} none swap sw 0 0", CDROM)
        files.initramfs(swap.device, "ext4")
        files.grub(f"root={root.device}", f"resume={swap.device}")
        files.boot_by_grub(disk, root)


GUEST = Guest("two-disks", Path(__file__), build, PACKAGES, mended=MENDED)
