"""Debian 12 with a host-only initramfs of dracut's, systemd inside it, and nothing of virtio."""

from __future__ import annotations

from pathlib import Path

from tests.guests.build import DEBIAN, VMWARE_MODULES, Disk
from tests.guests.guest import Guest
from tests.guests.installer import CDROM, GRUB_FILES, one_root

DRACUT = {
    "/etc/dracut.conf.d/10-vmware.conf": "\n".join(
        (
            'hostonly="yes"',
            'hostonly_cmdline="no"',
            'use_fstab="yes"',
            f'drivers="{" ".join(VMWARE_MODULES)} ext4"',
            'filesystems="ext4"',
            'add_dracutmodules+=" systemd "',
        )
    )
}


def build(disk: Disk) -> None:
    parts = one_root(disk)
    root, swap = parts["/"], parts["swap"]
    with disk.root({"/": root}) as files:
        files.settle(f"{root.device} / ext4 errors=remount-ro 0 1", f"{swap.device} none swap sw 0 0", CDROM)
        files.write(DRACUT)
        for version in files.kernels:
            files.run("dracut", "--force", "--kver", version, f"/boot/initrd.img-{version}")
        files.grub(f"root={root.device}", f"resume={swap.device}")
        files.boot_by_grub(disk, root)


MENDED = {"/etc/fstab", *GRUB_FILES, "/boot/initrd.img-*", "/etc/dracut.conf.d/90-hyper2kvm.conf"}
GUEST = Guest("dracut", Path(__file__), build, (*DEBIAN, "dracut"), mended=frozenset(MENDED))
