"""Windows disks through the whole line, as `h2kvmctl --config` and the daemon run it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.guests.windows import states
from tests.guests.windows.files import CONFIG
from tests.guests.windows.machine import Windows
from tests.guests.windows.releases import SERVER_2019, WINDOWS_11
from tests.support.ctl import ctl
from tests.support.disks import empty_disk, sh
from tests.support.service import fingerprint, running
from tests.support.windows_beds import Beds
from tests.support.windows_repair import Judged

FAILED = 1
GUESTS = (Windows(release=SERVER_2019, san_policy=3, clock_in_utc="dword"), Windows(WINDOWS_11, firmware="uefi"))
REFUSALS = {
    "guest-hibernated": (states.hibernated, states.resuming, states.woken, states.log_of_fast_startup),
    "windows-unclean": (states.to_be_checked, states.unclean_log),
    "windows-bitlocker": (states.encrypted,),
    "windows-dynamic-disk": (states.dynamic,),
}


def line(folder: Path, vmdk: Path, **keys: object) -> subprocess.CompletedProcess[str]:
    config = folder / "win.yaml"
    asked = {"vmdk": vmdk, "vm_name": "win", "output_dir": folder / "images", "verify": "content", **keys}
    config.write_text("".join(f"{key}: {json.dumps(value, default=str)}\n" for key, value in asked.items()))
    return ctl("--config", config, "--conversion-dir", folder / "work", cwd=folder)


def report(folder: Path) -> Any:
    return json.loads((folder / "images/win.report.json").read_text())


@pytest.mark.parametrize("windows", GUESTS, ids=lambda windows: f"{windows.release.name}-{windows.firmware}")
def test_windows_goes_through_the_line(windows_beds: Beds, virtio_win: Path, tmp_path: Path, windows: Windows) -> None:
    """Domain and image fit each other, the rest of the disk is untouched, and the report says what was done."""
    vmdk = windows_beds.vmdk(tmp_path / "export", windows)
    before = fingerprint(vmdk.parent)
    done = line(tmp_path, vmdk, virtio_win=virtio_win)
    assert done.returncode == 0, done.stderr
    assert fingerprint(vmdk.parent) == before

    raws = [tmp_path / name for name in ("source.raw", "image.raw")]
    for image, raw in zip((vmdk, tmp_path / "images/win.qcow2"), raws, strict=True):
        sh("qemu-img", "convert", "-O", "raw", image, raw)
    disk = replace(windows_beds.disk(tmp_path / "bed.raw", windows), path=raws[0])
    source, made = Judged(disk), Judged(replace(disk, path=raws[1]))
    changed = {path for path, entry in source.files.items() if made.files[path] != entry}
    assert changed == {f"{CONFIG}/{name}" for name in ("SYSTEM", "SOFTWARE", "DRIVERS")}

    told = report(tmp_path)
    facts = {file["sha256"] for driver in told["guest"]["windows"]["drivers"] for file in driver["files"]}
    assert facts <= {entry.digest for entry in made.files.values()}
    assert told["guest"]["windows"]["build"] == windows.release.build
    domain = ElementTree.parse(tmp_path / "images/win.xml").getroot()
    assert [target.get("bus") for target in domain.findall("devices/disk[@device='disk']/target")] == ["virtio"]
    clock = domain.find("clock")
    assert clock is not None
    assert clock.get("offset") == ("utc" if windows.clock_in_utc != "no" else "localtime")
    assert domain.find("clock/timer[@name='hypervclock']") is not None
    assert domain.find("features/hyperv") is not None
    text = (tmp_path / "images/win.report.md").read_text()
    assert all(word in text for word in ("viostor", "192.0.2.21", "Microsoft Windows Hardware", "StartOverride"))


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
@pytest.mark.parametrize(
    ("state", "code"),
    [(state, code) for code, some in REFUSALS.items() for state in some],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_states_are_refused_by_name_before_a_byte_is_converted(
    windows_beds: Beds, virtio_win: Path, tmp_path: Path, state: states.Make, code: str, firmware: str
) -> None:
    windows = Windows(firmware="uefi" if firmware == "uefi" else "bios")
    done = line(tmp_path, windows_beds.vmdk(tmp_path / "export", windows, state), virtio_win=virtio_win)
    assert done.returncode == FAILED
    assert f"[{code}]" in done.stderr
    assert [*(tmp_path / "work").glob("**/*")] == [*(tmp_path / "images").glob("*.qcow2")] == []


def test_storage_space_is_refused_by_name(windows_beds: Beds, tmp_path: Path) -> None:
    done = line(tmp_path, windows_beds.vmdk(tmp_path / "export", Windows(firmware="uefi"), states.in_storage_space))
    assert done.returncode == FAILED and "[windows-storage-spaces]" in done.stderr


@pytest.mark.parametrize("name", ["empty.iso", "missing.iso"])
def test_useless_driver_disc_is_refused_before_a_byte_is_converted(
    windows_beds: Beds, tmp_path: Path, name: str
) -> None:
    empty_disk(tmp_path / "empty.iso", 1)
    done = line(tmp_path, windows_beds.vmdk(tmp_path / "export"), virtio_win=tmp_path / name)
    assert done.returncode == FAILED and "[virtio-win-unreadable]" in done.stderr
    assert not (tmp_path / "images/win.qcow2").exists()


def test_windows_without_drivers_gets_devices_that_it_knows(
    windows_beds: Beds, service_folder: Path, installed_helper: tuple[str, ...], tmp_path: Path
) -> None:
    """The job succeeds with a warning, which list, show and report have."""
    vmdk = windows_beds.vmdk(tmp_path / "export")
    with running(service_folder, installed_helper) as service:
        source = service.source(vmdk)
        service.drop("win.yaml", vmdk=source, vm_name="win", verify="content")
        job = service.succeeded("win")
        assert "windows-no-virtio" in {concern["code"] for concern in service.report("win")["guest"]["concerns"]}
        assert "SATA disks and e1000e" in (service.images / "win.report.md").read_text()
        assert "SATA disks and e1000e" in service.ctl("show", job.id).stdout
        assert "warning" in service.ctl("list").stdout
        domain = ElementTree.parse(service.images / "win.xml").getroot()
    assert [target.get("bus") for target in domain.findall("devices/disk[@device='disk']/target")] == ["sata"]
    assert {model.get("type") for model in domain.findall("devices/interface/model")} == {"e1000e"}
