"""Data disks of the kinds that only snapshots and ESX have, by the whole one-shot migration: `h2kvmctl --config`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.ctl import ctl
from tests.support.disks import empty_disk, sh
from tests.support.host import service_python
from tests.support.vmdk import child_of, cid_of, full
from tests.support.vmdk_images import Grains, cowd, descriptor, sesparse
from tests.support.windows_beds import Beds

GIB = 1 << 30
CAPACITY = 4 << 11
"""Sectors of the small disks."""
DELTA: Grains = {0: full(4096), 3: b"x" * 4096, 900: b"y" * 4096, CAPACITY // 8 - 1: b"z" * 4096}


def split_with_a_snapshot(folder: Path) -> Path:
    """A disk of three extents, and what was written after its snapshot, across the edge of two of them."""
    base = folder / "web.vmdk"
    sh("qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", base, str(4 * GIB + 512))
    for number, place in enumerate((0, 2 * GIB - 65536, 3 * GIB, 4 * GIB + 512 - 69632), 1):
        sh("qemu-io", "-f", "vmdk", "-c", f"write -P {number} {place} 68k", base)
    return child_of(base, "web-000001.vmdk", f"write -P 9 {2 * GIB - 8192} 16k", "write -P 8 1G 1M", "write -z 3G 64k")


def flat(folder: Path) -> str:
    """A disk as ESX has it; its CID."""
    (folder / "web-flat.vmdk").write_bytes(full(CAPACITY * 512))
    base = descriptor("vmfs", f'RW {CAPACITY} VMFS "web-flat.vmdk"', cid="1234abcd")
    (folder / "web.vmdk").write_bytes(base)
    return cid_of(folder / "web.vmdk")


def delta(folder: Path, create_type: str, kind: str, data: bytes) -> Path:
    parent = flat(folder), "web.vmdk"
    (folder / "web-000001-delta.vmdk").write_bytes(data)
    child = folder / "web-000001.vmdk"
    child.write_bytes(descriptor(create_type, f'RW {CAPACITY} {kind} "web-000001-delta.vmdk"', parent=parent))
    return child


def esx_snapshot(folder: Path) -> Path:
    return delta(folder, "vmfsSparse", "VMFSSPARSE", cowd(DELTA, CAPACITY, grain=8))


def sesparse_snapshot(folder: Path) -> Path:
    return delta(folder, "seSparse", "SESPARSE", sesparse({**DELTA, 4: None}, CAPACITY, unmapped=7))


@pytest.mark.parametrize("make", [split_with_a_snapshot, esx_snapshot, sesparse_snapshot])
def test_a_data_disk_is_migrated_and_every_byte_is_proven(make: Callable[[Path], Path], tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.mkdir()
    source = make(export)
    before = {path.name: path.stat().st_mtime_ns for path in export.iterdir()}
    config = tmp_path / "data01.yaml"
    config.write_text(f"vmdk: {source}\nvm_name: data01\noutput_dir: {tmp_path}/images\nverify: content\n")
    done = ctl("--debug", "--config", config, "--conversion-dir", tmp_path / "work", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "qemu-storage-daemon --blockdev " in done.stderr

    image, report = tmp_path / "images/data01.qcow2", tmp_path / "images/data01.report.json"
    sh("qemu-img", "compare", "-f", "vmdk", "-F", "qcow2", source, image)
    told = json.loads(report.read_text())
    size = told["image"]["disks"][0]["virtual_size"]
    assert f"all {size} bytes read the same from source and image" in told["image"]["evidence"]
    assert {Path(file["path"]).name for file in told["plan"]["disks"][0]["files"]} == set(before)
    assert {path.name: path.stat().st_mtime_ns for path in export.iterdir()} == before
    assert not [*(tmp_path / "work").iterdir()]


def without_privilege(folder: Path, vmdk: Path) -> subprocess.CompletedProcess[str]:
    """A one-shot run as a container has it: an unprivileged user, nothing setuid, no helper."""
    vmdk.chmod(0o644)
    words = (
        f"--config={vmdk.with_suffix('.yaml')}",
        f"--output-dir={folder}/images",
        f"--conversion-dir={folder}/work",
    )
    vmdk.with_suffix(".yaml").write_text(f"vmdk: {vmdk}\n")
    argv = ["setpriv", "--no-new-privs", *service_python("hyper2kvmd.cli.ctl", *words)]
    return subprocess.run(argv, capture_output=True, text=True, cwd=folder, timeout=60, check=False)


def test_a_disk_with_nothing_to_mount_needs_no_helper(service_folder: Path) -> None:
    disk = empty_disk(service_folder / "esp.raw", 80)
    sh("sfdisk", "-q", disk, stdin="start=2048, type=c\n")
    sh("mkfs.vfat", "--offset=2048", disk, str(79 * 1024))
    vmdk = service_folder / "esp.vmdk"
    sh("qemu-img", "convert", "-O", "vmdk", disk, vmdk)
    done = without_privilege(service_folder, vmdk)
    assert done.returncode == 0, done.stderr
    sh("qemu-img", "compare", "-f", "vmdk", "-F", "qcow2", vmdk, service_folder / "images/esp.qcow2")


def test_a_windows_needs_no_helper(windows_beds: Beds, service_folder: Path) -> None:
    done = without_privilege(service_folder, windows_beds.vmdk(service_folder / "export"))
    assert done.returncode == 0, done.stderr
    assert "[windows-no-virtio]" in done.stderr + done.stdout


def test_a_missing_helper_is_told_before_a_byte_is_converted(service_folder: Path) -> None:
    disk = empty_disk(service_folder / "data.raw", 80)
    sh("mkfs.ext4", "-q", disk)
    vmdk = service_folder / "data.vmdk"
    sh("qemu-img", "convert", "-O", "vmdk", disk, vmdk)
    done = without_privilege(service_folder, vmdk)
    assert done.returncode == 78 and done.stderr.endswith("[helper-unreachable]\n"), done.stderr
    assert "convert:" not in done.stdout


def test_the_disk_with_a_boot_loader_boots_first_also_without_a_repair(tmp_path: Path) -> None:
    first, second = empty_disk(tmp_path / "data.raw", 4), empty_disk(tmp_path / "boot.raw", 4)
    with second.open("r+b") as file:
        file.write(b"\xeb\x63GRUB ".ljust(510, b"\0") + b"\x55\xaa")
    config = tmp_path / "web01.yaml"
    config.write_text(f"vmdk: [{first}, {second}]\nguest: none\noutput_dir: {tmp_path}/images\n")
    done = ctl("--config", config, "--conversion-dir", tmp_path / "work", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "images/web01.report.json").read_text())["guest"]["boot_disk"] == 1
