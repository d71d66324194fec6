"""Guests as they leave VMware: migrated by the command line, booted on virtio, and repaired for good at once."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests.guests import debian12, lvm_xfs, several_kernels
from tests.guests.catalogue import BROKEN
from tests.guests.guest import Guest, disk
from tests.integration.disks import empty_disk, loop, sh
from tests.integration.host import USER, as_service
from tests.integration.service import PROGRAMS

QUICK = ("lvm-xfs", "btrfs-subvolumes", "dracut", "extlinux")
"""Those of Debian 12 whose packages other tests need as well. The rest are for `make test-guests`."""
OLD_NAME = re.compile(r"^\+(?!\+\+).*(/dev/sd|by-path)", re.MULTILINE)


def cases() -> list[Any]:
    guests = (debian12.Recipe().guest, *BROKEN)
    return [pytest.param(one, id=one.name, marks=() if one.name in QUICK else pytest.mark.slow) for one in guests]


def exported(guest: Guest, folder: Path) -> Path:
    """The guest's disk as VMware's tools would hand it over."""
    return as_vmdk(disk(guest), "raw", folder / "web01.vmdk")


def as_vmdk(image: Path, image_format: str, target: Path) -> Path:
    sh("qemu-img", "convert", "-f", image_format, "-O", "vmdk", "-o", "subformat=monolithicSparse", image, target)
    shutil.chown(target, USER, USER)
    return target


def migrated(source: Path, name: str, verify: str) -> Any:
    """The report of a one-shot run, and its image beside it."""
    folder = source.parent
    config = folder / f"{name}.yaml"
    config.write_text(f"vmdk: {source}\nvm_name: {name}\noutput_dir: {folder}\nverify: {verify}\n")
    argv = as_service(PROGRAMS / "h2kvmctl", "--config", config, "--conversion-dir", folder / "conversions")
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/", timeout=280, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads((folder / f"{name}.report.json").read_text())
    print(name, {stage: round(seconds, 2) for stage, seconds in report["seconds"].items()}, report["verdict"])
    return report


@pytest.mark.parametrize("guest", cases())
def test_it_boots_on_virtio_and_a_second_repair_finds_nothing_to_do(
    guest: Guest, service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    report = migrated(exported(guest, service_folder), "first", "boot")
    paths = {change["path"] for change in report["guest"]["changes"]}
    assert {path for path in paths if not any(fnmatchcase(path, name) for name in guest.mended)} == set()
    assert {name for name in guest.mended if not any(fnmatchcase(path, name) for path in paths)} == set()
    assert [change["path"] for change in report["guest"]["changes"] if OLD_NAME.search(change["diff"])] == []
    assert report["guest"]["warnings"] == []
    assert any("asked for a login" in line for line in report["verdict"]["evidence"])
    assert any(guest.says in line for line in report["verdict"]["console_tail"])

    again = as_vmdk(service_folder / "first.qcow2", "qcow2", service_folder / "again.vmdk")
    report = migrated(again, "second", "check")
    assert report["guest"]["changes"] == []
    assert report["guest"]["warnings"] == []


@pytest.mark.slow
def test_every_kernel_gets_virtio_not_only_the_one_that_boots(
    service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    guest = migrated(exported(several_kernels.GUEST, service_folder), "first", "check")["guest"]
    assert len(guest["kernels"]) == 2
    mended = {change["path"] for change in guest["changes"] if "virtio_blk" in change["summary"]}
    assert mended == {f"/boot/initrd.img-{version}" for version in guest["kernels"]}


def test_a_volume_group_of_the_hosts_with_the_same_name_stays_as_it_was(
    service_folder: Path, installed_helper: tuple[str, ...], tmp_path: Path
) -> None:
    """Where device-mapper can activate volumes, the host would otherwise meet two groups of one name."""
    source = exported(lvm_xfs.GUEST, service_folder)
    with loop(empty_disk(tmp_path / "host", 64), length=64 << 20) as device:
        here = ("--driverloaded", "n", "--config", "backup { backup=0 archive=0 }", "--devices", device)
        sh("vgcreate", *here, lvm_xfs.GROUP, device)
        shown = ("-o", "vg_name,vg_uuid,vg_seqno,vg_size,pv_name,pv_uuid")
        before = sh("vgs", *here, *shown)
        guest = migrated(source, "first", "check")["guest"]
        assert sh("vgs", *here, *shown) == before
    assert guest["root"].startswith(f"{lvm_xfs.GROUP}/root (xfs")
