"""Disks that grow: the image, what is on it, and the space that it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hyper2kvmd.disk.qemu.qemu_img import check
from hyper2kvmd.model.asked import Migration
from tests.support.converting import convert_planned, order_for, planned
from tests.support.disks import empty_disk, sh

MIB = 1 << 20
SOURCE, GROWN = 66 * MIB, 130 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A GPT with an ext4."""
    fs, path = empty_disk(tmp_path / "fs", 64), empty_disk(tmp_path / "web01.raw", SOURCE // MIB)
    sh("mkfs.ext4", "-q", fs)
    sh("sfdisk", "-q", path, stdin="label: gpt\nstart=2048, size=131072\n")
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(fs.read_bytes())
    return path


@pytest.mark.parametrize("reserve", [False, True])
@pytest.mark.parametrize("out_format", ["qcow2", "raw"])
def test_a_disk_grows_and_its_content_stays(disk: Path, tmp_path: Path, out_format: str, reserve: bool) -> None:
    asked = Migration.model_validate(
        {"vmdk": disk, "vm_name": "web01", "resize": "+64M", "out_format": out_format, "verify": "content"}
    )
    work = tmp_path / "work"
    work.mkdir()
    plan = planned(disk, preallocate=reserve)
    image = convert_planned(plan, order_for(asked, work))
    (one,) = image.disks
    told = json.loads(sh("qemu-img", "info", "--output=json", "-f", out_format, one.path))
    assert one.virtual_size == told["virtual-size"] == GROWN
    assert image.layout == plan.layout
    assert image.evidence[-1] == f"grown to {GROWN} bytes: partitions and volumes read back as before"
    if out_format == "qcow2":
        assert check(one.path) is None
    if reserve:
        assert one.path.stat().st_blocks * 512 >= GROWN
    raw = tmp_path / "grown.raw"
    sh("qemu-img", "convert", "-f", out_format, "-O", "raw", one.path, raw)
    assert raw.read_bytes() == disk.read_bytes().ljust(GROWN, b"\0")
    assert (
        convert_planned(plan, order_for(asked, work)).disks[0].virtual_size == GROWN
    )  # an attempt that was killed here


def test_a_compressed_image_grows(disk: Path, tmp_path: Path) -> None:
    asked = Migration(vmdk=(disk,), vm_name="web01", resize=("1G",), compress=True)
    image = convert_planned(planned(disk), order_for(asked, tmp_path))
    assert image.disks[0].virtual_size == 1 << 30
    assert check(image.disks[0].path) is None
