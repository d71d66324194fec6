"""Concerns about a machine: each device or setting that the new machine does not have, and no false alarm."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd import catalogue
from tests.support.vmx import ONE_DISK, QUIET, codes, put, read

USUAL = {
    "pciBridge0.present": "TRUE",
    "pciBridge4.virtualDev": "pcieRootPort",
    "vmci0.present": "TRUE",
    "hpet0.present": "TRUE",
    "svga.present": "TRUE",
    "mks.enable3d": "TRUE",
    "usb.present": "TRUE",
    "usb:0.present": "TRUE",
    "usb:0.deviceType": "hid",
    "usb_xhci:4.present": "TRUE",
    "usb_xhci:4.deviceType": "hid",
    "usb.autoConnect.device0": "",
    "sound.present": "TRUE",
    "serial0.present": "FALSE",
    "parallel0.present": "FALSE",
    "pciPassthru0.present": "FALSE",
    "ctkEnabled": "FALSE",
    "scsi0:0.ctkEnabled": "FALSE",
    "scsi0.sharedBus": "none",
    "scsi0:0.sharing": "",
    "scsi0:0.mode": "persistent",
    "scsi0:0.redo": "",
    "ftcpt.ftEncryptionMode": "ftEncryptionOpportunistic",
    "replay.allowFT": "TRUE",
    "checkpoint.vmState": "",
    "cleanShutdown": "TRUE",
    "uefi.secureBoot.enabled": "FALSE",
    "guestinfo.userdata": "I2Nsb3VkLWNvbmZpZwo=",
    "sched.cpu.units": "mhz",
    "tools.syncTime": "FALSE",
}


def test_a_usual_machine_is_no_concern(tmp_path: Path) -> None:
    assert read(put(tmp_path, {**QUIET, **ONE_DISK, **USUAL})).concerns == ()


@pytest.mark.parametrize(
    ("lines", "code", "level"),
    [
        ({"pciPassthru0.present": "TRUE", "pciPassthru0.deviceId": "0x1db6"}, "pci-not-migrated", "warning"),
        ({"pciPassthru10.present": "true"}, "pci-not-migrated", "warning"),
        ({"pciPassthru0.present": "TRUE", "pciPassthru0.vgpu": "grid_p40-2q"}, "vgpu-not-migrated", "warning"),
        ({"pciPassthru1.present": "TRUE", "pciPassthru1.virtualDev": "vmiop"}, "vgpu-not-migrated", "warning"),
        ({"usb.autoConnect.device0": "path:1/0/2 autoclean:1"}, "usb-not-migrated", "warning"),
        ({"serial0.present": "TRUE", "serial0.fileType": "pipe"}, "port-not-migrated", "information"),
        ({"serial1.present": "TRUE", "serial1.fileType": "network"}, "port-not-migrated", "information"),
        ({"parallel0.present": "TRUE"}, "port-not-migrated", "information"),
        ({"faultTolerance.primary": "TRUE"}, "fault-tolerance-ends", "warning"),
        ({"ftcpt.role": "primary"}, "fault-tolerance-ends", "warning"),
        ({"ctkEnabled": "TRUE"}, "block-tracking-ends", "information"),
        ({"scsi0:0.ctkEnabled": "TRUE"}, "block-tracking-ends", "information"),
        ({"scsi0:0.mode": "independent-persistent"}, "disk-independent", "information"),
        ({"scsi0:0.mode": "Independent-Nonpersistent"}, "disk-nonpersistent", "warning"),
        ({"scsi0.sharedBus": "virtual"}, "disk-shared", "warning"),
        ({"scsi0.sharedBus": "Physical"}, "disk-shared", "warning"),
        ({"scsi0:0.sharing": "multi-writer"}, "disk-shared", "warning"),
        ({"floppy0.present": "TRUE"}, "floppy-not-migrated", "information"),
        ({"memSize": "lots"}, "setting-unusable", "warning"),
    ],
)
def test_one_concern(lines: dict[str, str], code: str, level: str, tmp_path: Path) -> None:
    vmx = put(tmp_path, {**QUIET, **ONE_DISK, **USUAL, **lines})
    (found,) = read(vmx).concerns
    assert (found.code, found.level) == (code, level)
    assert found.message.startswith(f"{vmx}: ") and found.message.isprintable()
    assert catalogue.entries()[found.code].kind == "concern"


def test_each_kind_of_device_is_told_once(tmp_path: Path) -> None:
    lines = {f"pciPassthru{number}.present": "TRUE" for number in range(5)}
    lines |= {f"serial{number}.present": "TRUE" for number in range(2)} | {"parallel0.present": "TRUE"}
    found = read(put(tmp_path, {**QUIET, **ONE_DISK, **lines}))
    assert codes(found) == ["pci-not-migrated", "port-not-migrated"]
    assert "and 2 more" in found.concerns[0].message


def test_a_disk_in_the_place_of_the_controller(tmp_path: Path) -> None:
    lines = {"scsi0:7.present": "TRUE", "scsi0:7.fileName": "7.vmdk"}
    found = read(put(tmp_path, {**QUIET, **ONE_DISK, **lines}, ["web01.vmdk", "7.vmdk"]))
    assert len(found.disks) == 2 and codes(found) == ["drive-doubtful"]
    assert "scsi0:7" in found.concerns[0].message


def test_a_key_that_is_repeated(tmp_path: Path) -> None:
    vmx = put(tmp_path, {**QUIET, **ONE_DISK, "memSize": "1024"})
    vmx.write_text(vmx.read_text() + 'MEMSIZE = "2048"\nscsi0:0.present = "TRUE"\n')
    found = read(vmx)
    assert found.memory == 2048
    assert codes(found) == ["setting-repeated"]
    assert "memsize" in found.concerns[0].message


@pytest.mark.parametrize(
    ("lock", "is_folder", "expected"),
    [
        ("web01.vmx.lck", True, True),
        ("web01.vmx.lck", False, True),
        ("web01.vmdk.lck", True, True),
        (".lck-3409000000000000", False, True),
        ("other.vmdk.lck", True, False),
        ("web01.vmx~", False, False),
    ],
)
def test_a_lock_of_a_running_machine(lock: str, is_folder: bool, expected: bool, tmp_path: Path) -> None:
    vmx = put(tmp_path, {**QUIET, **ONE_DISK})
    (tmp_path / lock).mkdir() if is_folder else (tmp_path / lock).touch()
    assert codes(read(vmx)) == ["machine-running"] * expected


def test_a_lock_beside_a_disk_in_another_folder(tmp_path: Path) -> None:
    vmx = put(tmp_path, {**QUIET, **ONE_DISK, "scsi0:0.fileName": "disks/a.vmdk"}, ["disks/a.vmdk"])
    (tmp_path / "disks/a.vmdk.lck").mkdir()
    assert codes(read(vmx)) == ["machine-running"]
