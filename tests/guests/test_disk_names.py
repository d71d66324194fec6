"""Guests whose names of disks are not those of the list: each boots from the right disk, with its own root."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.guests.altered import altered
from tests.guests.build import MIB
from tests.guests.debian12 import Recipe
from tests.guests.migration import as_vmdk, migrated
from tests.support.disks import empty_disk, loop, sh
from tests.support.host import USER

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


def booted(report: Any, root_disk: int) -> None:
    """It asked for a login, with the data on /srv."""
    assert report["guest"]["root"].startswith(f"disk {root_disk}, partition 1")
    assert f"UUID={DATA_UUID} /srv " in report["guest"]["fstab_after"]
    assert any("asked for a login" in line for line in report["verdict"]["evidence"])
    assert not re.search(r"^/dev/(?!sr0)", report["guest"]["fstab_after"], re.MULTILINE)


def test_the_boot_disk_was_the_second_one_in_the_guest(service_folder: Path, installed_helper: tuple[str, ...]) -> None:
    system, data = exported(service_folder, renamed("/dev/sda", "/dev/sdb"), with_data("/dev/sda1"))
    report = migrated([system, data], "order", verify="boot")
    booted(report, 1)
    assert report["guest"]["warnings"] == []


def test_the_boot_disk_is_the_second_one_in_the_list(service_folder: Path, installed_helper: tuple[str, ...]) -> None:
    system, data = exported(service_folder, with_data("/dev/sdb1"))
    report = migrated([data, system], "second", verify="boot")
    booted(report, 2)
    (warning,) = report["guest"]["warnings"]
    assert warning.startswith("the machine boots from disk 2: disk 1 has no boot code")
    boot = re.search(r'<target dev="(\w+)"[^>]*>\s*<boot order="1"', (service_folder / "second.xml").read_text())
    assert boot is not None and boot[1] == "vdb"


@pytest.mark.slow
def test_a_root_on_a_multipath_map(service_folder: Path, installed_helper: tuple[str, ...]) -> None:
    names = renamed("/dev/sda([0-9])", r"/dev/mapper/mpatha-part\1")
    system, data = exported(service_folder, names, with_data("/dev/mapper/mpathb-part1"))
    booted(migrated([system, data], "mpath", verify="boot"), 1)


@pytest.mark.slow
def test_two_namespaces_of_one_nvme_controller(service_folder: Path, installed_helper: tuple[str, ...]) -> None:
    """The .vmx tells which is which, against the order of the list."""
    system, data = exported(service_folder, renamed("/dev/sda([0-9])", r"/dev/nvme0n2p\1"), with_data("/dev/nvme0n1p1"))
    vmx = system.with_suffix(".vmx")
    vmx.write_text('nvme0:0.fileName = "data.vmdk"\nnvme0:1.fileName = "system.vmdk"\n')
    shutil.chown(vmx, USER, USER)
    report = migrated([system, data], "nvme", verify="boot")
    booted(report, 1)
    assert report["guest"]["warnings"] == []
