"""A disk of every format goes the whole way by the one-shot command, as the service user, and comes out the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from hyper2kvmd.disk.qemu.qemu_img import check
from hyper2kvmd.model.disks import Segment, SourceFormat
from tests.support.disks import empty_disk, sh
from tests.support.host import USER, as_service, looped
from tests.support.kernel import Kernel
from tests.support.service import PROGRAMS, fingerprint

MIB = 1 << 20


def make_data_disk(folder: Path) -> Path:
    """A partitioned disk with an ext4 of files, and no system on it."""
    raw = empty_disk(folder / "made.source", 128)
    sh("sfdisk", "-q", raw, stdin="label: gpt\n2048,,L\n")
    tree = folder / "tree"
    (tree / "srv").mkdir(parents=True)
    for name in ("a", "b"):
        (tree / "srv" / name).write_bytes(os.urandom(9 * MIB))
    sh("mkfs.ext4", "-q", "-E", f"offset={MIB}", "-d", tree, raw, "120M")
    shutil.rmtree(tree)
    return raw


def files_of(raw: Path) -> dict[str, bytes]:
    """The files that a guest would find."""
    with looped(raw, Segment(offset=MIB, length=120 * MIB)) as root:
        return {path.name: path.read_bytes() for path in (root / "srv").iterdir()}


OPTIONS = {"vhd": ["vpc", "-o", "force_size=on"]}
"""Of qemu-img, for formats that it knows by another name."""


@pytest.mark.parametrize("fmt", get_args(SourceFormat))
def test_a_data_disk_goes_the_whole_way(fmt: str, service_folder: Path, installed_helper: tuple[str, ...]) -> None:
    del installed_helper
    raw = make_data_disk(service_folder)
    exports = service_folder / "exports"
    exports.mkdir()
    source = exports / f"disk.{fmt}"
    sh("qemu-img", "convert", "-f", "raw", "-O", *OPTIONS.get(fmt, [fmt]), raw, source)
    before = fingerprint(exports)
    conversions, images = service_folder / "conversions", service_folder / "images"
    config = service_folder / "data01.yaml"
    config.write_text(f"vmdk: {source}\noutput_dir: {images}\nconversion_dir: {conversions}\nverify: content\n")
    shutil.chown(config, USER, USER)
    ctl = as_service(PROGRAMS / "h2kvmctl")
    for arguments in (["check", config], ["plan", config], ["--config", config]):
        done = subprocess.run(
            [*ctl, *map(str, arguments)], capture_output=True, text=True, cwd="/", timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
    assert check(images / "data01.qcow2") is None
    sh("qemu-img", "convert", "-f", "qcow2", "-O", "raw", images / "data01.qcow2", service_folder / "back")
    assert files_of(service_folder / "back") == files_of(raw)
    report = json.loads((images / "data01.report.json").read_text())
    (disk,) = report["plan"]["disks"]
    assert (disk["format"], disk["virtual_size"]) == (fmt, 128 * MIB)
    assert [volume["content"] for volume in report["plan"]["layout"]["volumes"]] == ["ext4"]
    assert any("all 134217728 bytes read the same" in line for line in report["verdict"]["evidence"])
    assert fingerprint(exports) == before
    assert list(conversions.iterdir()) == []
    assert Kernel.now().clean
