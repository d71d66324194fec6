"""Debian 12 that boots anywhere, with every program that may configure its network: a test picks one."""

from __future__ import annotations

from pathlib import Path

from tests.guests.build import Disk
from tests.guests.guest import Guest
from tests.guests.installer import PACKAGES, install, one_root

STACKS = ("ifupdown", "netplan.io", "network-manager", "iproute2", "dbus")


def build(disk: Disk) -> None:
    parts = one_root(disk)
    with disk.root({"/": parts["/"]}) as files:
        install(files, parts, broken=False)
        files.boot_by_grub(disk, parts["/"])


GUEST = Guest("network-stacks", Path(__file__), build, (*PACKAGES, *STACKS))
