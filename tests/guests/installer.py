"""Debian as its installer leaves it, on the disk that VMware gives it: what most recipes are made of."""

from __future__ import annotations

from tests.guests.build import DEBIAN, MIB, Disk, Part, Root, make

PACKAGES = (*DEBIAN, "initramfs-tools")
SIZE, SWAP, BOOT = 3072 * MIB, 256 * MIB, 256 * MIB
CDROM = "/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0"
GRUB_FILES = ("/boot/grub/device.map", "/boot/grub/grub.cfg", "/etc/default/grub")
INITRAMFS_FILES = (
    "/boot/initrd.img-*",
    "/etc/initramfs-tools/conf.d/resume",
    "/etc/initramfs-tools/modules",
)
MENDED = frozenset(("/etc/fstab", *GRUB_FILES, *INITRAMFS_FILES))
"""What a repair changes in a guest that `install` made."""


def one_root(disk: Disk, *, size: int = SIZE) -> dict[str, Part]:
    """Everything on /dev/sda1, swap on a logical partition."""
    root, swap = disk.partition(size, ("/dev/sda1", 0, "L"), ("/dev/sda5", SWAP, "S"))
    make(root, "ext4")
    make(swap, "swap")
    return {"/": root, "swap": swap}


def install(files: Root, parts: dict[str, Part], *, broken: bool = True) -> None:
    """fstab, initramfs and GRUB for ext4 file systems: by device and for VMware's hardware, or fit for any."""

    def spec(point: str) -> str:
        return parts[point].device if broken else f"UUID={parts[point].uuid}"

    fstab = [f"{spec('/')} / ext4 errors=remount-ro 0 1", f"{spec('swap')} none swap sw 0 0", CDROM]
    fstab += [f"{spec('/boot')} /boot ext4 defaults 0 2"] if "/boot" in parts else []
    fstab += [f"{spec('/boot/efi')} /boot/efi vfat umask=0077,nofail 0 1"] if "/boot/efi" in parts else []
    files.settle(*fstab)
    files.initramfs(spec("swap"), *(("ext4",) if broken else ()))
    files.grub(f"root={spec('/')}", f"resume={spec('swap')}", uuids=not broken)
