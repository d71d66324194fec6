"""Debian 11: kernel 5.10, which reads an initramfs piece by piece in the old way, and udev of its time."""

from __future__ import annotations

from pathlib import Path

from tests.guests.build import Disk
from tests.guests.guest import Guest
from tests.guests.installer import MENDED, PACKAGES, install, one_root


def build(disk: Disk) -> None:
    parts = one_root(disk)
    with disk.root({"/": parts["/"]}) as files:
        install(files, parts)
        files.boot_by_grub(disk, parts["/"])


GUEST = Guest("debian11", Path(__file__), build, PACKAGES, "bullseye", mended=MENDED)
