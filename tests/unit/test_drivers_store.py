"""The records of a driver in Windows: as an installation of virtio-win left them in a real registry.

What real ones had is in WRITTEN and CONFIGURED; they were read from the exports that lxc/distrobuilder uses.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hyper2kvmd.guest.windows.drivers.choice import choose_packages
from hyper2kvmd.guest.windows.drivers.package import DriverPackage
from hyper2kvmd.guest.windows.drivers.releases import WindowsTarget
from hyper2kvmd.guest.windows.drivers.source import DriverSource
from hyper2kvmd.guest.windows.drivers.store import (
    Form,
    Records,
    StorePlace,
    database_hive,
    numbers_of,
    oem_map,
    published_name,
    records_of,
    version_value,
)
from tests.support.authenticode import CERTIFIED, microsoft
from tests.support.iso_image import iso
from tests.support.virtio_win import FILES, Package, Stamp

SERVER_2019 = WindowsTarget(17763, True, "amd64")
STAMPS = {"viostor": Stamp(date="12/02/2021"), "vioscsi": Stamp(date="11/12/2020", version="100.83.104.19000")}
STAMPS["NetKVM"] = STAMPS["vioscsi"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DriverPackage]:
    return chosen(tmp_path_factory.mktemp("iso"), SERVER_2019)


def chosen(folder: Path, target: WindowsTarget, dirid: int = 12) -> dict[str, DriverPackage]:
    files: dict[str, bytes] = {}
    for driver in FILES:
        stamp = STAMPS.get(driver, Stamp())
        made = Package(driver, "w10", Stamp("amd64.6.1", stamp.date, stamp.version, dirid)).files(microsoft(CERTIFIED))
        files |= {f"{driver}/w10/{name}": data for name, data in made.items()}
    path = folder / "virtio-win.iso"
    path.write_bytes(iso(files))
    with DriverSource.open(path) as source:
        return {package.name: package for package in choose_packages(source, target)}


def records(package: DriverPackage, form: Form = "full", *, drivers_hive: bool = True) -> Records:
    return records_of(package, StorePlace("oem7.inf", "ControlSet001", form, drivers_hive))


def shown(found: Records, package: DriverPackage) -> dict[str, object]:
    """`HIVE key | name` with the value; the name of the package is `PACKAGE`."""
    out: dict[str, object] = {}
    for one in found.values:
        value: object = one.data
        if one.type in (1, 2):
            value = one.data.decode("utf-16-le").removesuffix("\0")
        elif one.type == 7:
            value = one.data.decode("utf-16-le").removesuffix("\0\0").split("\0")
        elif one.type == 4:
            (value,) = struct.unpack("<I", one.data)
        key = f"{one.hive} {one.path} | {one.name}"
        assert key not in out, "a value is set once"
        out[key.replace(package.store_folder, "PACKAGE")] = (one.type, _named(value, package.store_folder))
    return out


def _named(value: object, folder: str) -> object:
    if isinstance(value, list):
        return [one.replace(folder, "PACKAGE") for one in value]
    return value.replace(folder, "PACKAGE") if isinstance(value, str) else value


SERVICE = "SYSTEM ControlSet001\\Services\\viostor"
DATABASE = "SYSTEM DriverDatabase"
INSTALLED = f"{DATABASE}\\DriverPackages\\PACKAGE"
CONFIGURATION = f"{INSTALLED}\\Configurations\\scsi_inst"
MESSAGES = "Device\\Interrupt Management\\MessageSignaledInterruptProperties"
LOCKED = (
    "SOFTWARE Microsoft\\Windows\\CurrentVersion\\Setup\\PnpLockdownFiles\\%SystemRoot%/System32/drivers/viostor.sys"
)
FIRST, OTHER = bytes.fromhex("01ff0000"), bytes.fromhex("02ff0000")
IDS = {
    "PCI\\VEN_1AF4&DEV_1001": OTHER,
    "PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00": FIRST,
    "PCI\\VEN_1AF4&DEV_1042": OTHER,
    "PCI\\VEN_1AF4&DEV_1042&SUBSYS_11001AF4&REV_01": FIRST,
}
WRITTEN: dict[str, object] = {
    f"{LOCKED} | Class": (4, 4),
    f"{LOCKED} | Owners": (7, ["oem7.inf"]),
    f"{LOCKED} | Source": (2, "%SystemRoot%\\System32\\DriverStore\\FileRepository\\PACKAGE\\viostor.sys"),
    "SYSTEM ControlSet001\\Services\\EventLog\\System\\viostor | EventMessageFile": (
        2,
        "%SystemRoot%\\System32\\IoLogMsg.dll",
    ),
    "SYSTEM ControlSet001\\Services\\EventLog\\System\\viostor | TypesSupported": (4, 7),
    f"{SERVICE} | ErrorControl": (4, 1),
    f"{SERVICE} | Group": (1, "SCSI miniport"),
    f"{SERVICE} | ImagePath": (2, "System32\\drivers\\viostor.sys"),
    f"{SERVICE} | Owners": (7, ["oem7.inf"]),
    f"{SERVICE} | Start": (4, 0),
    f"{SERVICE} | Type": (4, 1),
    f"{SERVICE}\\Parameters | BusType": (4, 1),
    f"{SERVICE}\\Parameters\\PnpInterface | 5": (4, 1),
    f"{DATABASE}\\DriverInfFiles\\oem7.inf | ": (7, ["PACKAGE"]),
    f"{DATABASE}\\DriverInfFiles\\oem7.inf | Active": (1, "PACKAGE"),
    f"{DATABASE}\\DriverInfFiles\\oem7.inf | Configurations": (7, ["scsi_inst"]),
    f"{INSTALLED} | ": (1, "oem7.inf"),
    f"{INSTALLED} | Catalog": (1, "viostor.cat"),
    f"{INSTALLED} | InfName": (1, "viostor.inf"),
    f"{INSTALLED} | Provider": (1, "Red Hat, Inc."),
    f"{INSTALLED} | SignerName": (1, "Microsoft Windows Hardware Compatibility Publisher"),
    f"{INSTALLED} | SignerScore": (4, 0x0D000005),
    f"{INSTALLED} | StatusFlags": (4, 0x12),
    f"{INSTALLED} | Version": (
        3,
        bytes.fromhex(
            "00ff090000000000 7be9364d25e3ce11bfc108002be10318 00c0978c0fe7d701 fc5368005a006400 0000000000000000"
        ),
    ),
    f"{CONFIGURATION} | ConfigFlags": (4, 0),
    f"{CONFIGURATION} | ConfigScope": (4, 7),
    f"{CONFIGURATION} | Service": (1, "viostor"),
    f"{CONFIGURATION}\\Device\\Interrupt Management\\Affinity Policy | DevicePolicy": (4, 5),
    f"{CONFIGURATION}\\{MESSAGES} | MSISupported": (4, 1),
    f"{CONFIGURATION}\\{MESSAGES} | MessageNumberLimit": (4, 0x100),
    f"{CONFIGURATION}\\Services\\viostor\\Parameters | BusType": (4, 1),
    f"{CONFIGURATION}\\Services\\viostor\\Parameters\\PnpInterface | 5": (4, 1),
    f"{INSTALLED}\\Strings | vendor": (1, "Red Hat, Inc."),
    f"{INSTALLED}\\Strings | disk.devicedesc": (1, "Red Hat VirtIO SCSI controller"),
    **{f"{DATABASE}\\DeviceIds\\{one} | oem7.inf": (3, rank) for one, rank in IDS.items()},
    **{f"{INSTALLED}\\Descriptors\\{one} | Configuration": (1, "scsi_inst") for one in IDS},
    **{f"{INSTALLED}\\Descriptors\\{one} | Description": (1, "%disk.devicedesc%") for one in IDS},
    **{f"{INSTALLED}\\Descriptors\\{one} | Manufacturer": (1, "%vendor%") for one in IDS},
}
OWN = {
    f"{INSTALLED} | FileSize",
    f"{INSTALLED} | ImportDate",
    f"{INSTALLED} | OemPath",
    f"{DATABASE}\\DeviceIds\\{{4d36e97b-e325-11ce-bfc1-08002be10318}} | oem7.inf",
}
"""Values that depend on the files and the place of the source, and one that the exports of other drivers have."""


def test_the_records_of_a_disk_driver_are_those_of_a_real_installation(packages: dict[str, DriverPackage]) -> None:
    found = shown(records(packages["viostor"]), packages["viostor"])
    assert {key: value for key, value in found.items() if key not in OWN} == WRITTEN
    assert set(found) - set(WRITTEN) == OWN
    keys = {one.path.replace(packages["viostor"].store_folder, "PACKAGE") for one in records(packages["viostor"]).keys}
    assert f"{CONFIGURATION}\\Device\\Interrupt Management".partition(" ")[2] in keys


@pytest.mark.parametrize(
    ("driver", "configuration", "scope", "service", "version"),
    [
        ("vioscsi", "scsi_inst", 7, "vioscsi", ""),
        ("vioserial", "VirtioSerial_Device.NT", 0x107, "VirtioSerial", "1.15"),
        ("balloon", "BALLOON_Device.NT", 0x105, "BALLOON", "1.15"),
    ],
)
def test_configurations_are_those_of_real_installations(
    packages: dict[str, DriverPackage], driver: str, configuration: str, scope: int, service: str, version: str
) -> None:
    package = packages[driver]
    found = shown(records(package), package)
    key = f"{INSTALLED}\\Configurations\\{configuration}"
    assert found[f"{key} | ConfigScope"] == (4, scope)
    assert found[f"{key} | Service"] == (1, service)
    assert found.get(f"SYSTEM ControlSet001\\Services\\{service}\\Parameters\\Wdf | KmdfLibraryVersion") == (
        (1, version) if version else None
    )
    assert found[f"{DATABASE}\\DriverInfFiles\\oem7.inf | Configurations"] == (7, [configuration])


def test_the_service_of_a_driver_that_starts_later(packages: dict[str, DriverPackage]) -> None:
    found = shown(records(packages["vioserial"]), packages["vioserial"])
    key = "SYSTEM ControlSet001\\Services\\VirtioSerial"
    assert found[f"{key} | ImagePath"] == (2, "\\SystemRoot\\System32\\drivers\\vioser.sys")
    assert found[f"{key} | DisplayName"] == (
        1,
        "@oem7.inf,%VirtioSerial.ServiceDesc%;VirtIO VirtioSerial Service",
    )
    assert f"{key} | Group" not in found


def test_a_network_driver_is_staged_for_its_installation(packages: dict[str, DriverPackage]) -> None:
    """As the export of a real one: in the hive DRIVERS, without configurations and services."""
    package = packages["netkvm"]
    found = shown(records(package), package)
    assert {key.split()[0] for key in found} == {"DRIVERS"}
    assert not any("Configuration" in key or "Services" in key or "Descriptors" in key for key in found)
    assert found["DRIVERS DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_1041 | oem7.inf"] == (3, OTHER)
    assert found["DRIVERS DriverDatabase\\DeviceIds\\{4d36e972-e325-11ce-bfc1-08002be10318} | oem7.inf"] == (0, b"")
    assert found["DRIVERS DriverDatabase\\DriverPackages\\PACKAGE | Version"] == (
        3,
        bytes.fromhex(
            "00ff090000000000 72e9364d25e3ce11bfc108002be10318 00008ec386b8d601 384a680053006400 0000000000000000"
        ),
    )
    assert {file.path.split("/")[1] for file in records(package).files} == {"DriverStore", "CatRoot", "oem7.inf"}
    without = shown(records(package, drivers_hive=False), package)
    assert {key.split()[0] for key in without} == {"SYSTEM"}
    assert len(without) == len(found)


def test_the_files_of_a_package(packages: dict[str, DriverPackage]) -> None:
    package = packages["viostor"]
    files = {file.path.replace(package.store_folder, "PACKAGE"): file.data for file in records(package).files}
    store = "System32/DriverStore/FileRepository/PACKAGE"
    content = {file.name: file.data for file in package.files}
    assert files == {
        f"{store}/viostor.inf": content["viostor.inf"],
        f"{store}/viostor.cat": content["viostor.cat"],
        f"{store}/viostor.sys": content["viostor.sys"],
        "INF/oem7.inf": content["viostor.inf"],
        "System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}/oem7.cat": content["viostor.cat"],
        "System32/drivers/viostor.sys": content["viostor.sys"],
    }
    assert package.store_folder.startswith("viostor.inf_amd64_")


def test_a_driver_that_runs_from_the_store(tmp_path: Path) -> None:
    package = chosen(tmp_path, SERVER_2019, dirid=13)["viostor"]
    found = shown(records(package), package)
    assert found[f"{SERVICE} | ImagePath"] == (
        2,
        "System32\\DriverStore\\FileRepository\\PACKAGE\\viostor.sys",
    )
    assert not any(key.startswith("SOFTWARE") for key in found)
    assert "System32/drivers/viostor.sys" not in {file.path for file in records(package).files}


def test_the_minimal_form_is_that_of_virt_v2v(packages: dict[str, DriverPackage]) -> None:
    package = packages["viostor"]
    found = shown(records(package, "minimal"), package)
    label = "guestor_viostor.inf_amd64_0000000000000000"
    key = f"{DATABASE}\\DriverPackages\\{label}"
    expected: dict[str, object] = {
        f"{DATABASE}\\DriverInfFiles\\guestor_viostor.inf | ": (7, [label]),
        f"{DATABASE}\\DriverInfFiles\\guestor_viostor.inf | Active": (1, label),
        f"{DATABASE}\\DriverInfFiles\\guestor_viostor.inf | Configurations": (7, ["guestor_conf"]),
        f"{key} | Version": (3, bytes.fromhex("00ff090000000000 7be9364d25e3ce11bfc108002be10318") + bytes(24)),
        f"{key}\\Configurations\\guestor_conf | ConfigFlags": (4, 0),
        f"{key}\\Configurations\\guestor_conf | Service": (1, "viostor"),
        **{f"{DATABASE}\\DeviceIds\\{one} | guestor_viostor.inf": (3, FIRST) for one in IDS},
        **{f"{key}\\Descriptors\\{one} | Configuration": (1, "guestor_conf") for one in IDS},
    }
    assert {name: value for name, value in found.items() if name.startswith(DATABASE)} == expected
    assert found[f"{SERVICE} | Start"] == (4, 0)
    assert f"{SERVICE} | Owners" not in found
    assert {file.path for file in records(package, "minimal").files} == {
        "Drivers/VirtIO/viostor.inf",
        "Drivers/VirtIO/viostor.cat",
        "Drivers/VirtIO/viostor.sys",
        "System32/drivers/viostor.sys",
    }
    assert records(packages["netkvm"], "minimal").values == ()


@pytest.mark.parametrize("form", ["minimal", "critical"])
def test_without_a_record_no_driver_runs_from_the_store(tmp_path: Path, form: Form) -> None:
    """Windows 11 and Server 2025 have INF files that leave the driver there."""
    package = chosen(tmp_path, SERVER_2019, dirid=13)["viostor"]
    found = records(package, form)
    assert shown(found, package)[f"{SERVICE} | ImagePath"] == (2, "System32\\drivers\\viostor.sys")
    (program,) = [file.data for file in found.files if file.path == "System32/drivers/viostor.sys"]
    assert program == package.driver.data
    assert not any("DriverStore" in file.path for file in found.files)


def test_windows_7_has_a_database_of_critical_devices(packages: dict[str, DriverPackage]) -> None:
    package = packages["vioscsi"]
    found = shown(records(package, "critical"), package)
    key = "SYSTEM ControlSet001\\Control\\CriticalDeviceDatabase\\PCI#VEN_1AF4&DEV_1048&SUBSYS_11001AF4&REV_01"
    assert found[f"{key} | Service"] == (1, "vioscsi")
    assert found[f"{key} | ClassGUID"] == (1, "{4D36E97B-E325-11CE-BFC1-08002BE10318}")
    assert not any("DriverDatabase" in name for name in found)
    assert records(packages["balloon"], "critical").values == ()


def test_the_same_package_always_has_the_same_records(tmp_path: Path) -> None:
    path = tmp_path / "virtio-win.iso"
    path.write_bytes(iso(all_files()))
    with DriverSource.open(path) as source:
        one, other = choose_packages(source, SERVER_2019), choose_packages(source, SERVER_2019)
    assert [records(package) for package in one] == [records(package) for package in other]


def all_files() -> dict[str, bytes]:
    made = {driver: Package(driver, "w10").files(microsoft(CERTIFIED)) for driver in FILES}
    return {f"{driver}/{name}": data for driver, files in made.items() for name, data in files.items()}


def test_a_name_that_is_free(packages: dict[str, DriverPackage]) -> None:
    package = packages["viostor"]
    assert published_name(package, [], {}) == "oem0.inf"
    assert published_name(package, ["OEM0.inf", "oem1.INF", "usb.inf", "oem3.inf"], {"oem2.inf": "x"}) == "oem4.inf"
    assert published_name(package, ["oem0.inf"], {"oem2.inf": package.store_folder.upper()}) == "oem2.inf"
    assert published_name(package, [], {"guestor.inf": package.store_folder}) == "oem0.inf"
    assert published_name(package, ["oem1.inf"], {}, bytes((0x90,))) == "oem2.inf"
    assert published_name(package, ["oem1.inf"], {}, bytes((0xF0, 0))) == "oem4.inf"
    assert numbers_of(["oem0.inf", "oem.inf", "oem12.inf", "xoem1.inf"]) == (0, 12)


@pytest.mark.parametrize(
    ("before", "numbers", "after"),
    [
        (None, [], ""),
        (None, [0], "80"),
        (None, [0, 1], "c0"),
        (b"\xe0", [3], "f0"),
        (b"\xa0", [1], "e0"),
        (b"\x80", [8, 23], "808001"),
        (b"\xff\x00", [0], "ff00"),
    ],
)
def test_the_map_of_names(before: bytes | None, numbers: list[int], after: str) -> None:
    """Real maps: 80 with oem0.inf alone, e0 with the first three."""
    assert oem_map(before, numbers).hex() == after


def test_versions_and_hives(packages: dict[str, DriverPackage]) -> None:
    place = StorePlace("oem0.inf")
    assert {name: database_hive(package, place) for name, package in packages.items()} == {
        "viostor": "SYSTEM",
        "vioscsi": "SYSTEM",
        "netkvm": "DRIVERS",
        "balloon": "SYSTEM",
        "vioserial": "SYSTEM",
    }
    assert {len(version_value(package)) for package in packages.values()} == {48}
