"""Debian 13: an initramfs packed by zstd, of modules that are packed by xz in the guest."""

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


GUEST = Guest("debian13", Path(__file__), build, PACKAGES, "trixie", mended=MENDED)
