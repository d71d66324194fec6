"""Debian 12 on btrfs: root and /home are subvolumes of /dev/sda2, which fstab and command line name by device."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.guests.build import Disk, make, mount, run
from tests.guests.guest import Guest
from tests.guests.installer import CDROM, MENDED, PACKAGES, SIZE, SWAP


def build(disk: Disk) -> None:
    swap, root = disk.partition(SIZE, ("/dev/sda1", SWAP, "S"), ("/dev/sda2", 0, "L"))
    make(swap, "swap")
    make(root, "btrfs")
    top = disk.raw.with_name("top")
    top.mkdir()
    with ExitStack() as undo:
        mount(undo, top, root.device)
        for name in ("@", "@home"):
            run("btrfs", "subvolume", "create", top / name)
    top.rmdir()
    fstab = [
        f"{root.device} {point} btrfs defaults,subvol={name} 0 0" for point, name in (("/", "@"), ("/home", "@home"))
    ]
    with disk.root({"/": root}, "subvol=@") as files:
        files.settle(*fstab, f"{swap.device} none swap sw 0 0", CDROM)
        files.initramfs(swap.device, "btrfs", "crc32c_generic")
        files.grub(f"root={root.device} rootflags=subvol=@", f"resume={swap.device}")
        files.boot_by_grub(disk, root, "/@/boot/grub", "btrfs")


GUEST = Guest("btrfs-subvolumes", Path(__file__), build, (*PACKAGES, "btrfs-progs"), mended=MENDED)
