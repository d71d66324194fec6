"""A whole machine by its .vmx: disks on two kinds of buses, snapshots and datastores, from the YAML to the domain."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.guests.migration import migrated
from tests.guests.with_data import DATA_UUID, exported, renamed, with_data
from tests.support.ctl import ctl
from tests.support.host import USER
from tests.support.vmdk_images import Grains, hosted
from tests.support.vmx import QUIET, text

GRAIN = 65536
MAC = "00:50:56:8a:10:01"
MACHINE = {
    **QUIET,
    "displayName": "web 01",
    "memSize": "1024",
    "numvcpus": "2",
    "ethernet0.present": "TRUE",
    "ethernet0.addressType": "static",
    "ethernet0.address": MAC,
    "ethernet0.pciSlotNumber": "192",
}


def machine(folder: Path, disks: Mapping[str, str], **more: str) -> Path:
    lines = dict(MACHINE)
    for place, file in disks.items():
        lines |= {f"{place}.present": "TRUE", f"{place}.fileName": file}
    vmx = folder / "machine.vmx"
    vmx.write_text(text(lines | {key.replace("_", "."): value for key, value in more.items()}))
    return vmx


def test_a_machine_with_a_system_on_nvme_and_data_on_scsi_boots(
    service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    """Both are named in fstab by the kernel's names; the firmware is told to try NVMe first."""
    names = renamed("/dev/sda([0-9])", r"/dev/nvme0n1p\1")
    system, data = exported(service_folder, names, with_data("/dev/sda1"))
    store = service_folder / "store/vm"
    store.mkdir(parents=True)
    data = data.rename(store / "data.vmdk")
    disks = {"scsi0:0": "/vmfs/volumes/ssd-1/vm/data.vmdk", "nvme0:0": "system.vmdk"}
    vmx = machine(service_folder, disks, bios_hddOrder="nvme0:0")
    for path in (vmx, data):
        shutil.chown(path, USER, USER)
    report = migrated([system], "web01", vmx=vmx, datastore_map={"ssd-1": service_folder / "store"}, verify="boot")

    assert report["guest"]["root"].startswith("disk 1, partition 1")
    assert f"UUID={DATA_UUID} /srv " in report["guest"]["fstab_after"]
    assert not re.search(r"^/dev/(?!sr0)", report["guest"]["fstab_after"], re.MULTILINE)
    assert report["guest"]["warnings"] == []
    assert any("asked for a login" in line for line in report["verdict"]["evidence"])
    domain = ET.parse(service_folder / "web01.xml").getroot()
    assert [one.get("address") for one in domain.iterfind("devices/interface/mac")] == [MAC]
    assert len(domain.findall("devices/disk[@device='disk']")) == 2
    assert domain.findtext("vcpu") == "2"


# ---------------------------------------------------------------- snapshots, without a guest

OLD, NEW = b"o" * GRAIN, b"n" * GRAIN
CHAIN: Mapping[str, tuple[str | None, Grains]] = {
    "web01.vmdk": (None, {0: OLD, 1: OLD}),
    "web01-000001.vmdk": ("web01.vmdk", {1: NEW}),
}
"""The parent of each disk, and its grains."""


def chain(folder: Path, **more: str) -> Path:
    """A machine that runs on the second disk; `first` is a snapshot of the first one."""
    for name, (parent, grains) in CHAIN.items():
        hosted(grains, 2 * GRAIN // 512, parent=("fffffffe", parent) if parent else None).write(folder / name)
    snapshot = {"uid": "7", "displayName": "first", "disk0.node": "scsi0:0", "disk0.fileName": "web01.vmdk"}
    (folder / "machine.vmsd").write_text(text({f"snapshot0.{key}": value for key, value in snapshot.items()}))
    return machine(folder, {"scsi0:0": "web01-000001.vmdk"}, **more)


def converted(folder: Path, vmx: Path, **keys: object) -> subprocess.CompletedProcess[str]:
    asked = {"vmx": str(vmx), "vm_name": "web01", "output_dir": str(folder / "out"), "out_format": "raw", **keys}
    (folder / "job.yaml").write_text(json.dumps(asked))
    return ctl("--config", folder / "job.yaml", "--conversion-dir", folder / "work", cwd=folder)


@pytest.mark.parametrize(("snapshot", "expected"), [(None, OLD + NEW), ("first", OLD + OLD), ("7", OLD + OLD)])
def test_the_current_state_or_a_snapshot(snapshot: str | None, expected: bytes, tmp_path: Path) -> None:
    vmx = chain(tmp_path)
    done = converted(tmp_path, vmx, **({"snapshot": snapshot} if snapshot else {}))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/web01.raw").read_bytes() == expected
    warnings = (tmp_path / "out/web01.report.md").read_text()
    assert ("the machine has snapshots (1)" in warnings) is (snapshot is None)
    assert ("the disks are those of the snapshot 'first' (uid 7)" in warnings) is (snapshot is not None)


def test_the_names_of_all_snapshots_are_in_the_error(tmp_path: Path) -> None:
    done = converted(tmp_path, chain(tmp_path), snapshot="second")
    assert done.returncode == 1
    assert "'first' (uid 7)" in done.stderr and "[snapshot-unknown]" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_linked_clone_is_flattened(tmp_path: Path) -> None:
    """VMware writes its parent with a path; a person puts the files together and the bare name in."""
    vmx = chain(tmp_path)
    vmx.write_text(vmx.read_text().replace("web01-000001.vmdk", "/vmfs/volumes/ssd1/clone/web01-000001.vmdk"))
    done = converted(tmp_path, vmx)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/web01.raw").read_bytes() == OLD + NEW
    assert "which has the same name" in (tmp_path / "out/web01.report.md").read_text()


def test_a_refusal_comes_before_anything_is_made(tmp_path: Path) -> None:
    done = converted(tmp_path, chain(tmp_path, encryption_keySafe="vmware:key"))
    assert done.returncode == 1
    assert "the machine web 01 is encrypted" in done.stderr and "[machine-encrypted]" in done.stderr
    assert not (tmp_path / "out").exists()
