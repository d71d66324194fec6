"""A Linux guest of a few files: its kernel has virtio built in, and its names of disks need a repair."""

from __future__ import annotations

import shutil
from pathlib import Path

from hyper2kvmd.model.disks import Image
from tests.support.guest_on_disk import put
from tests.support.host import looped, make_disk

VERSION = "6.1.0-18-amd64"


def small_guest(path: Path) -> Image:
    """A raw disk at `path` with the guest on its only partition."""
    image = make_disk(path, ("ext4",))
    with looped(path, image.layout.volumes[0].segments[0]) as root:
        put(root, "etc/os-release", 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n')
        put(root, "etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n")
        put(root, "etc/hostname", "small\n")
        put(root, "etc/default/grub", 'GRUB_CMDLINE_LINUX="root=/dev/sda1"\n')
        put(root, "boot/grub/grub.cfg", f"menuentry x {{\n linux /boot/vmlinuz-{VERSION} root=/dev/sda1 ro\n}}\n")
        put(root, f"boot/vmlinuz-{VERSION}", "")
        put(root, f"usr/lib/modules/{VERSION}/modules.dep", "")
        put(root, f"usr/lib/modules/{VERSION}/modules.builtin", "kernel/virtio_pci.ko\nkernel/virtio_blk.ko\n")
        (root / "lib").symlink_to("usr/lib")
    return image


def content_of(image: Image, raw: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of each file of the guest on the raw disk at `raw`, by its path."""
    with looped(raw, image.layout.volumes[0].segments[0]) as root:
        files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
        return {str(path.relative_to(root)): (path.stat().st_mode, path.read_bytes()) for path in files}


def copy_of(image: Image, path: Path) -> None:
    shutil.copyfile(image.disks[0].path, path)
