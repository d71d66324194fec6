"""Debian 12 with its root as a logical volume (XFS), beside an ext4 /boot that fstab names by its old controller.

LVM may use the disks of its devices file only, and that names the PV by VMware's own identifier. The volume group
is called as many are, the host's own perhaps.
"""

from __future__ import annotations

from pathlib import Path

from tests.guests.build import Disk, make
from tests.guests.guest import Guest
from tests.guests.installer import BOOT, CDROM, PACKAGES, SIZE, SWAP

GROUP = "vg0"
BY_PATH = "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0-part1"
DEVICES_FILE = "/etc/lvm/devices/system.devices"
WWID = "naa.6000c29d5e1c0b1f5e2a7c8d9e0f1a2b"


def build(disk: Disk) -> None:
    boot, pv = disk.partition(SIZE, ("/dev/sda1", BOOT, "L"), ("/dev/sda2", 0, "lvm"))
    root, swap = disk.volumes(pv, GROUP, SWAP)
    make(boot, "ext4")
    make(root, "xfs")
    make(swap, "swap")
    fstab = (f"/dev/{GROUP}/root / xfs defaults 0 0", f"{BY_PATH} /boot ext4 defaults 0 2")
    with disk.root({"/": root, "/boot": boot}) as files:
        files.settle(*fstab, f"/dev/{GROUP}/swap none swap sw 0 0", CDROM)
        entry = f"IDTYPE=sys_wwid IDNAME={WWID} DEVNAME=/dev/sda2 PVID={pv.uuid.replace('-', '')} PART=2"
        files.write(
            {
                DEVICES_FILE: f"# LVM uses devices listed in this file.\nVERSION=1.1.2\n{entry}",
                "/etc/lvm/lvmlocal.conf": "devices { use_devicesfile = 1 }",
            }
        )
        files.initramfs(swap.device, "xfs", "ext4", "dm_mod")
        files.grub(f"root={root.device}", f"resume={swap.device}")
        files.boot_by_grub(disk, boot, "/grub")


MENDED = {
    "/etc/fstab",
    DEVICES_FILE,
    "/boot/grub/device.map",
    "/boot/initrd.img-*",
    "/etc/initramfs-tools/modules",
}
GUEST = Guest("lvm-xfs", Path(__file__), build, (*PACKAGES, "lvm2", "xfsprogs"), mended=frozenset(MENDED))
