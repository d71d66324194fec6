"""A guest of two disks: the system's own, under names of another machine, and one with data."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.guests.altered import altered
from tests.guests.build import MIB
from tests.guests.debian12 import Recipe
from tests.guests.migration import as_vmdk
from tests.support.disks import empty_disk, loop, sh

DATA_UUID = "5a5a5a5a-0000-4000-8000-000000000001"
FILES = ("etc/fstab", "etc/default/grub", "boot/grub/grub.cfg", "etc/initramfs-tools/conf.d/resume")
Alter = Callable[[Path], None]


def renamed(before: str, after: str) -> Alter:
    """The names of the system's own disk, as another machine gave them."""

    def alter(root: Path) -> None:
        for name in FILES:
            path = root / name
            path.write_text(re.sub(before, after, path.read_text()))

    return alter


def with_data(spec: str) -> Alter:
    def alter(root: Path) -> None:
        (root / "srv").mkdir(exist_ok=True)
        with (root / "etc/fstab").open("a") as fstab:
            fstab.write(f"{spec} /srv ext4 defaults 0 2\n")

    return alter


def data_disk(path: Path) -> Path:
    """A partition with a file system, and no boot code."""
    disk = empty_disk(path, 64)
    sh("sfdisk", "-q", disk, stdin="label: dos\n2048,,L\n")
    with loop(disk, offset=MIB, length=63 * MIB) as device:
        sh("mkfs.ext4", "-q", "-U", DATA_UUID, device)
    return disk


def exported(folder: Path, *alterations: Alter) -> tuple[Path, Path]:
    """The system's disk and the data disk."""
    system = altered(Recipe(), folder, *alterations).disks[0].path
    found = (
        as_vmdk(system, "raw", folder / "system.vmdk"),
        as_vmdk(data_disk(folder / "data.raw"), "raw", folder / "data.vmdk"),
    )
    system.unlink()
    return found
