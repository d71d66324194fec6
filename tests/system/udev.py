"""udev leaves alone the devices that hold a guest. Run inside the machine of test_kernel.py."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyper2kvmd.model.disks import Image
from tests.support.access import client_argv
from tests.support.disks import sh
from tests.support.host import REPOSITORY, USER, as_qcow2, give, make_disk, scattered
from tests.support.kernel import Kernel, until_clean

RULES = Path("/etc/udev/rules.d")
LEFT_ALONE = {
    "HYPER2KVM=1",
    "SYSTEMD_READY=0",
    "UDISKS_IGNORE=1",
    "UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG=1",
}


@pytest.fixture(scope="module", autouse=True)
def rules() -> Iterator[None]:
    for rule in (REPOSITORY / "packaging/udev").iterdir():
        shutil.copy(rule, RULES)
    sh("udevadm", "control", "--reload")
    yield
    for rule in RULES.glob("*-hyper2kvm.rules"):
        rule.unlink()


@pytest.fixture
def conversions() -> Iterator[Path]:
    folder = Path("/var/lib/hyper2kvm/conversions")
    folder.mkdir(parents=True)
    shutil.chown(folder, USER, USER)
    yield folder
    shutil.rmtree(folder.parent)


def sizes() -> dict[str, str]:
    return {device.name: (device / "size").read_text().strip() for device in Path("/sys/block").iterdir()}


@contextmanager
def held(image: Image, helper: tuple[str, ...]) -> Iterator[set[str]]:
    """The names of the devices that a mount of the image's first volume stands on."""
    before = sizes()
    with subprocess.Popen(client_argv("hold", image, helper), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = json.loads(process.stdout.readline())["holding"]
        try:
            sh("udevadm", "settle")
            yield {name for name, size in sizes().items() if size != before.get(name, "0")}
        finally:
            os.kill(pid, signal.SIGKILL)
    assert until_clean(), Kernel.now()


def properties(device: str) -> set[str]:
    return set(sh("udevadm", "info", "--query=property", f"--name=/dev/{device}").splitlines())


@pytest.mark.parametrize(("form", "kinds"), [("raw", {"loop"}), ("qcow2", {"nbd"}), ("scattered", {"nbd", "dm-"})])
def test_what_holds_a_guest_is_left_alone(
    installed_helper: tuple[str, ...], conversions: Path, form: str, kinds: set[str]
) -> None:
    image = give(make_disk(conversions / "disk.raw", ("ext4",)))
    if form == "scattered":
        image = scattered(image)
    if form != "raw":
        image = give(as_qcow2(image))
    with held(image, installed_helper) as devices:
        assert {device.rstrip("0123456789") for device in devices} == kinds
        for device in devices:
            said = properties(device)
            assert said >= LEFT_ALONE, device
            assert not [line for line in said if line.startswith(("ID_FS_", "DEVLINKS=/dev/disk/by-uuid"))]
            number = Path(f"/sys/block/{device}/dev").read_text().strip()
            assert not Path(f"/run/udev/watch/b{number}").is_symlink()


def test_a_boot_sector_that_looks_like_a_partition_table(installed_helper: tuple[str, ...], conversions: Path) -> None:
    """The kernel makes partitions of what a file system has in its first sector; nothing looks into those either."""
    image = make_disk(conversions / "disk.raw", ("ext4",))
    (segment,) = image.layout.volumes[0].segments
    with image.disks[0].path.open("r+b") as disk:
        disk.seek(segment.offset + 446)
        disk.write(struct.pack("<4xB3xII48x2s", 0x83, 2048, 2048, b"\x55\xaa"))
    with held(give(as_qcow2(give(image))), installed_helper) as devices:
        (device,) = devices
        partitions = [path.name for path in Path("/sys/block", device).glob(f"{device}p*")]
        assert partitions == [f"{device}p1"]
        assert properties(partitions[0]) >= LEFT_ALONE


def test_another_devices_uuid_is_found(conversions: Path) -> None:
    """The tests above could fail: udev does look into a loop device that is not ours."""
    disk = conversions.parent / "other.raw"
    sh("truncate", "-s", "64M", disk)
    sh("mkfs.ext4", "-q", disk)
    device = Path(sh("losetup", "--find", "--show", disk).strip()).name
    try:
        sh("udevadm", "settle")
        assert "ID_FS_TYPE=ext4" in properties(device)
    finally:
        sh("losetup", "--detach", f"/dev/{device}")
