"""Guests whose names of disks are not those of the list: each boots from the right disk, with its own root."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.guests.migration import migrated
from tests.guests.with_data import DATA_UUID, exported, renamed, with_data
from tests.support.host import USER


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
