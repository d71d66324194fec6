"""Debian 12 with SELinux enforcing and every file labelled; it says so on its console before it asks for a login."""

from __future__ import annotations

from pathlib import Path

from tests.guests.build import Disk
from tests.guests.guest import Guest
from tests.guests.installer import MENDED, PACKAGES, install, one_root

GETTY = "/etc/systemd/system/serial-getty@.service.d/mode.conf"
SAY_MODE = "[Service]\nExecStartPre=/usr/sbin/getenforce"
CONTEXTS = "/etc/selinux/default/contexts/files/file_contexts"


def build(disk: Disk) -> None:
    parts = one_root(disk)
    with disk.root({"/": parts["/"]}) as files:
        install(files, parts)
        files.write({"/etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=default", GETTY: SAY_MODE})
        files.grub(f"root={parts['/'].device} security=selinux", f"resume={parts['swap'].device}")
        files.boot_by_grub(disk, parts["/"])
        files.run("setfiles", "-F", CONTEXTS, "/")


SELINUX = ("selinux-basics", "selinux-policy-default", "auditd")
GUEST = Guest("selinux", Path(__file__), build, (*PACKAGES, *SELINUX), mended=MENDED, says="Enforcing")
