"""virtio drivers in a Windows guest: recorded in its registry, beside their files, once. 32-bit needs no signatures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.guest.windows.registry import Hive, Value
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import SourceNic
from tests.support.guest_on_disk import put
from tests.support.hives import dword, hive, sz
from tests.support.virtio_win import FILES, Package, Stamp, tree
from tests.support.windows_guest import (
    CONFIG,
    RELEASE,
    STATIC,
    WindowsFolder,
    adapter,
    control_set,
    nested,
    repair_folder,
    software_hive,
    system_hive,
    value_of,
)

ENVIRONMENT = nested(r"Control\Session Manager\Environment", {"PROCESSOR_ARCHITECTURE": sz("x86")})
SERVICE = r"SYSTEM\Services\hyper2kvm-first-boot"
DISK_IDS = ("PCI\\VEN_1AF4&DEV_1001", "PCI\\VEN_1AF4&DEV_1048")


@pytest.fixture(scope="module")
def virtio_win(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stamps = {"w10": Stamp(decoration="x86.10.0"), "w7": Stamp(decoration="x86.6.1")}
    packages = [Package(driver, folder, stamp, "x86") for driver in FILES for folder, stamp in stamps.items()]
    return tree(tmp_path_factory.mktemp("virtio") / "win", None, tuple(packages))


def guest(folder: Path, *keys: Mapping[str, object], build: str = "19045") -> WindowsFolder:
    release = {**RELEASE, "CurrentBuildNumber": sz(build), "InstallationType": sz("Client")}
    windows = WindowsFolder(folder, system_hive(ENVIRONMENT, *keys), software_hive(release=release))
    put(folder, f"{CONFIG}/DRIVERS", hive({"DriverDatabase": {"Version": dword(1)}}))
    put(folder, "Windows/INF/oem0.inf", "[Version]")
    return windows


def codes(found: Guest) -> set[str]:
    return {concern.code for concern in found.concerns}


def root_value(data: bytes, path: str, name: str) -> Value | None:
    key = Hive.parse(data).find(path)
    return key.value(name) if key else None


def test_both_disk_drivers_are_recorded_as_installed(tmp_path: Path, virtio_win: Path) -> None:
    windows = guest(tmp_path)
    found = repair_folder(windows, virtio_win=virtio_win)
    for name in ("viostor", "vioscsi"):
        start = value_of(windows, rf"SYSTEM\Services\{name}", "Start")
        assert start is not None and start.number() == 0
        assert (tmp_path / f"Windows/System32/drivers/{name}.sys").is_file()
    for one in DISK_IDS:
        key = Hive.parse(windows.system).find(rf"DriverDatabase\DeviceIds\{one}")
        assert key is not None and next(value.name for value in key.values()).startswith("oem")
    stored = {path.name for path in tmp_path.glob("Windows/System32/DriverStore/FileRepository/*/*.sys")}
    assert {"viostor.sys", "vioscsi.sys", "netkvm.sys", "balloon.sys", "vioser.sys"} == stored
    assert {path.name for path in tmp_path.glob("Windows/INF/oem*.inf")} == {f"oem{n}.inf" for n in range(6)}
    assert root_value(windows.system, "DriverDatabase", "OemInfMap") == Value.binary("OemInfMap", b"\x7c")
    assert found.capabilities.disk_bus == "virtio" and found.capabilities.nic_model == "virtio"
    assert "windows-no-virtio" not in codes(found)


def test_numbers_that_windows_has_noted_are_not_used(tmp_path: Path, virtio_win: Path) -> None:
    """Also if the file of such a name is gone: here oem2.inf."""
    windows = guest(tmp_path)
    known = {"DriverDatabase": {"OemInfMap": (3, b"\xa0")}}
    windows.system = hive({"Select": {"Current": dword(1)}, "ControlSet001": control_set(ENVIRONMENT), **known})
    repair_folder(windows, virtio_win=virtio_win)
    assert {path.name for path in tmp_path.glob("Windows/INF/oem*.inf")} == {f"oem{n}.inf" for n in (0, 1, 3, 4, 5, 6)}
    assert root_value(windows.system, "DriverDatabase", "OemInfMap") == Value.binary("OemInfMap", b"\xfe")


def test_the_network_driver_is_recorded_in_the_other_hive(tmp_path: Path, virtio_win: Path) -> None:
    repair_folder(guest(tmp_path), virtio_win=virtio_win)
    drivers = (tmp_path / CONFIG.lstrip("/") / "DRIVERS").read_bytes()
    assert Hive.parse(drivers).find(r"DriverDatabase\DeviceIds\PCI\VEN_1AF4&DEV_1041") is not None
    assert root_value(drivers, "DriverDatabase", "OemInfMap") is None, "Windows has one map, in the other hive"


def test_a_second_repair_changes_nothing(tmp_path: Path, virtio_win: Path) -> None:
    windows = guest(tmp_path, adapter(settings=STATIC))
    assert repair_folder(windows, virtio_win=virtio_win, win_agent=True).changes
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert repair_folder(windows, virtio_win=virtio_win, win_agent=True).changes == ()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_drivers_that_are_recorded_need_no_first_boot(tmp_path: Path, virtio_win: Path) -> None:
    windows = guest(tmp_path, adapter())
    found = repair_folder(windows, virtio_win=virtio_win)
    assert found.windows is not None and found.windows.first_boot == ()
    assert value_of(windows, SERVICE, "Start") is None
    path = value_of(windows, r"SOFTWARE\Microsoft\Windows\CurrentVersion", "DevicePath")
    assert path is not None and path.text() == r"%SystemRoot%\inf"


@pytest.mark.parametrize(("build", "form"), [("19045", "minimal"), ("7601", "full")])
def test_drivers_without_records_are_installed_at_the_first_boot(
    build: str, form: str, tmp_path: Path, virtio_win: Path
) -> None:
    windows = guest(tmp_path, build=build)
    found = repair_folder(windows, virtio_win=virtio_win, win_drivers=form)
    start = value_of(windows, r"SYSTEM\Services\viostor", "Start")
    assert start is not None and start.number() == 0
    assert (tmp_path / "Windows/Drivers/VirtIO/netkvm.inf").is_file()
    assert value_of(windows, rf"{SERVICE}\Parameters", "Steps") == Value.multi_sz("Steps", ["drivers"])
    path = value_of(windows, r"SOFTWARE\Microsoft\Windows\CurrentVersion", "DevicePath")
    assert path is not None and path.text() == r"%SystemRoot%\inf;%SystemRoot%\Drivers\VirtIO"
    critical = value_of(windows, r"SYSTEM\Control\CriticalDeviceDatabase\PCI#VEN_1AF4&DEV_1001", "Service")
    assert (critical is not None) == (build == "7601")
    assert repair_folder(windows, virtio_win=virtio_win, win_drivers=form).changes == ()
    assert found.windows is not None and found.windows.first_boot[0].startswith("the driver packages are installed")


@pytest.mark.parametrize(
    ("drivers", "build", "extras"),
    [
        (None, "19045", ("usb",)),
        (None, "7601", ()),
        (tuple(FILES), "19045", ("usb", "agent", "balloon")),
        (("viostor", "vioscsi", "NetKVM", "viorng"), "19045", ("usb", "rng")),
    ],
    ids=["none", "none, Windows 7", "all but viorng", "viorng"],
)
def test_windows_gets_the_devices_that_it_can_drive(
    tmp_path: Path, drivers: tuple[str, ...] | None, build: str, extras: tuple[str, ...]
) -> None:
    source = None
    if drivers is not None:
        stamp = Stamp(decoration="x86.10.0")
        packages = tuple(Package(driver, "w10", stamp, "x86") for driver in drivers)
        source = tree(tmp_path / "virtio-win", None, packages)
    windows = guest(tmp_path / "guest", build=build)
    assert repair_folder(windows, virtio_win=source).capabilities.extras == extras
    assert (tmp_path / "guest/Windows/System32/drivers/viorng.sys").is_file() == ("rng" in extras)


@pytest.mark.parametrize(("asked", "bus"), [("scsi", "scsi"), ("sata", "sata"), ("virtio", "virtio")])
def test_the_bus_can_be_chosen(asked: str, bus: str, tmp_path: Path, virtio_win: Path) -> None:
    found = repair_folder(guest(tmp_path), virtio_win=virtio_win, win_disk=asked)
    assert found.capabilities.disk_bus == bus


def test_the_agent_is_installed_at_the_first_boot(tmp_path: Path, virtio_win: Path) -> None:
    windows = guest(tmp_path)
    repair_folder(windows, virtio_win=virtio_win, win_agent=True)
    assert value_of(windows, rf"{SERVICE}\Parameters", "Steps") == Value.multi_sz("Steps", ["agent"])
    installer = tmp_path / "Windows/System32/config/hyper2kvm-qemu-ga.msi"
    assert installer.read_bytes() == (virtio_win / "guest-agent/qemu-ga-i386.msi").read_bytes()


def test_steps_of_the_first_boot_are_in_their_order(tmp_path: Path, virtio_win: Path) -> None:
    keys = adapter(settings=STATIC), nested(r"Services\VMTools", {"Start": dword(2)})
    windows = guest(tmp_path, *keys)
    asked: dict[str, Any] = {"win_agent": True, "win_tools": "remove", "win_drivers": "minimal"}
    repair_folder(windows, (SourceNic(mac="00:50:56:01:aa:bb"),), virtio_win=virtio_win, **asked)
    steps = value_of(windows, rf"{SERVICE}\Parameters", "Steps")
    assert steps is not None and steps.texts() == ("drivers", "network", "tools", "agent")


def test_drivers_are_listed_with_their_digests(tmp_path: Path, virtio_win: Path) -> None:
    found = repair_folder(guest(tmp_path), virtio_win=virtio_win)
    assert found.windows is not None
    names = [driver.name for driver in found.windows.drivers]
    assert names == ["viostor", "vioscsi", "netkvm", "balloon", "vioserial"]
    assert {file.name for driver in found.windows.drivers for file in driver.files} >= {"viostor.sys", "netkvm.inf"}
    assert all(len(file.sha256) == 64 for driver in found.windows.drivers for file in driver.files)


@pytest.mark.parametrize(
    ("had", "asked", "told"),
    [
        (True, {}, ["driver-signature-limited", "windows-secure-boot-off"]),
        (True, {"secure_boot": True}, ["driver-signature-limited"]),
        (False, {}, ["driver-signature-limited"]),
    ],
)
def test_unsigned_drivers_leave_no_secure_boot(
    tmp_path: Path, virtio_win: Path, *, had: bool, asked: dict[str, Any], told: list[str]
) -> None:
    """It is a concern only if the machine would have had Secure Boot, and loses it."""
    found = repair_folder(guest(tmp_path / "with"), virtio_win=virtio_win, secure_boot_wanted=had, **asked)
    assert not found.capabilities.secure_boot
    assert sorted(code for code in codes(found) if "boot-off" in code or "signature" in code) == told
    assert repair_folder(guest(tmp_path / "without"), secure_boot_wanted=had).capabilities.secure_boot
