"""Debian 12 with two kernels, one for clouds and one for any hardware."""

from __future__ import annotations

from pathlib import Path

from tests.guests.build import MIB, Disk
from tests.guests.guest import Guest
from tests.guests.installer import MENDED, PACKAGES, install, one_root


def build(disk: Disk) -> None:
    parts = one_root(disk, size=4096 * MIB)
    with disk.root({"/": parts["/"]}) as files:
        install(files, parts)
        files.boot_by_grub(disk, parts["/"])


GUEST = Guest("several-kernels", Path(__file__), build, (*PACKAGES, "linux-image-amd64"), mended=MENDED)
