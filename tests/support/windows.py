"""Disks that look like those of Windows."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.support.disks import empty_disk, sh
from tests.support.host import MIB

START, LENGTH = MIB, 32 * MIB


def windows_disk(folder: Path) -> Path:
    """An MBR disk with one NTFS volume that holds a `bootmgr`, as a VMDK."""
    folder.mkdir()
    disk = empty_disk(folder.parent / "win.raw", 40)
    sh("sfdisk", "-q", disk, stdin=f"label: dos\nstart={START // 512}, size={LENGTH // 512}, type=7, bootable\n")
    with tempfile.NamedTemporaryFile(dir=folder.parent) as volume, tempfile.NamedTemporaryFile() as file:
        volume.truncate(LENGTH)
        sh("mkntfs", "--fast", "--force", "--quiet", "--label", "System", volume.name)
        sh("ntfscp", "--force", "--quiet", volume.name, file.name, "bootmgr")
        place = (f"of={disk}", "bs=1M", f"seek={START // MIB}", "conv=notrunc,sparse", "status=none")
        sh("dd", f"if={volume.name}", *place)
    vmdk = folder / "win.vmdk"
    sh("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", disk, vmdk)
    disk.unlink()
    return vmdk
