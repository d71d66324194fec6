"""The repairs of a Windows guest, on its registry and files; none of them changes anything a second time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.guest import Guest
from tests.support.guest_on_disk import put
from tests.support.hives import dword, sz
from tests.support.windows_guest import (
    RELEASE,
    WindowsFolder,
    expandable,
    multi,
    nested,
    repair_folder,
    software_hive,
    system_hive,
    value_of,
)

CLUSTER = nested(r"Services\ClusSvc", {"Start": dword(2)})


def guest(folder: Path, *keys: Mapping[str, object], policies: Mapping[str, object] | None = None) -> WindowsFolder:
    return WindowsFolder(folder, system_hive(*keys), software_hive(policies or {}))


def number(windows: WindowsFolder, path: str, name: str) -> int | None:
    value = value_of(windows, rf"SYSTEM\{path}", name)
    return value.number() if value else None


def codes(found: Guest) -> set[str]:
    return {concern.code for concern in found.concerns}


def test_disk_drivers_start_at_boot_again(tmp_path: Path) -> None:
    windows = guest(
        tmp_path,
        nested(r"Services\stornvme\StartOverride", {"0": dword(3)}),
        nested(r"Services\msahci", {"Start": dword(3)}),
        nested(r"Services\nvmedisk\StartOverride", {"0": dword(3)}),
    )
    found = repair_folder(windows)
    for name in ("storahci", "stornvme"):
        assert value_of(windows, rf"SYSTEM\Services\{name}\StartOverride", "0") is None
    assert number(windows, r"Services\msahci", "Start") == 0
    assert number(windows, r"Services\nvmedisk\StartOverride", "0") == 3, "of a driver that is not needed"
    (change,) = [change for change in found.changes if change.fix == "start-override"]
    assert r"[-HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\storahci\StartOverride]" in change.diff
    assert change.path == r"C:\Windows\System32\config\SYSTEM"


def test_data_disks_come_online_and_the_old_policy_is_reported(tmp_path: Path) -> None:
    windows = guest(tmp_path)
    found = repair_folder(windows)
    assert number(windows, r"Services\partmgr\Parameters", "SanPolicy") == 1
    (change,) = [change for change in found.changes if change.fix == "san-policy"]
    assert '; before: "SanPolicy"=dword:00000003\n' in change.diff
    assert '\n"SanPolicy"=dword:00000001\n' in change.diff


def test_a_node_of_a_cluster_keeps_its_policy(tmp_path: Path) -> None:
    windows = guest(tmp_path, CLUSTER)
    found = repair_folder(windows)
    assert number(windows, r"Services\partmgr\Parameters", "SanPolicy") == 3
    assert "windows-cluster" in codes(found)
    (concern,) = [one for one in found.concerns if one.code == "windows-cluster"]
    assert "3 (offline all), so that data disks stay offline" in concern.message and "Set-Disk" in concern.hint


def test_a_node_whose_disks_come_online_is_not_told_to_bring_them_online(tmp_path: Path) -> None:
    policy = nested(r"Services\partmgr\Parameters", {"SanPolicy": dword(1)})
    found = repair_folder(
        WindowsFolder(tmp_path, system_hive(nested(r"Services\ClusSvc", {"Start": dword(2)}), policy))
    )
    (concern,) = [one for one in found.concerns if one.code == "windows-cluster"]
    assert "come online here too" in concern.message and "Set-Disk" not in concern.hint


TOOLS = (
    nested(r"Services\VMTools", {"Start": dword(2), "ImagePath": sz(r"C:\Program Files\VMware\VMware Tools\x.exe")}),
    nested(r"Services\other", {"Start": dword(2), "ImagePath": sz(r'"C:\Program Files\VMware\VMware Tools\y.exe"')}),
    nested(r"Services\horizon", {"Start": dword(2), "ImagePath": sz(r"C:\Program Files\VMware\VMware View\z.exe")}),
    nested(r"Services\pvscsi", {"Start": dword(0)}),
    nested(r"Services\LSI_SAS", {"Start": dword(0)}),
    nested(r"Services\VMMemCtl", {"Start": dword(2)}),
    nested(r"Services\vmrawdsk", {"Start": dword(1)}),
    nested(r"Control\Class\{4d36e967-e325-11ce-bfc1-08002be10318}", {"UpperFilters": multi("partmgr", "vmrawdsk")}),
)


def test_vmware_tools_do_not_start(tmp_path: Path) -> None:
    windows = guest(tmp_path, *TOOLS)
    repair_folder(windows)
    starts = {
        name: number(windows, rf"Services\{name}", "Start")
        for name in ("VMTools", "other", "horizon", "pvscsi", "LSI_SAS", "VMMemCtl", "vmrawdsk")
    }
    assert starts == {
        "VMTools": 4,
        "other": 4,
        "horizon": 2,
        "pvscsi": 0,
        "LSI_SAS": 0,
        "VMMemCtl": 4,
        "vmrawdsk": 1,  # a filter of all disks: without it, none would start
    }


def test_vmware_tools_can_be_kept(tmp_path: Path) -> None:
    windows = guest(tmp_path, *TOOLS)
    repair_folder(windows, win_tools="keep")
    assert number(windows, r"Services\VMTools", "Start") == 2


def test_the_boot_manager_is_copied_to_where_a_firmware_looks(tmp_path: Path) -> None:
    put(tmp_path, "esp/EFI/Microsoft/Boot/bootmgfw.efi", b"MZ manager")
    windows = guest(tmp_path / "c")
    found = repair_folder(windows, esp=tmp_path / "esp")
    assert (tmp_path / "esp/EFI/Boot/bootx64.efi").read_bytes() == b"MZ manager"
    (change,) = [change for change in found.changes if change.fix == "efi-fallback"]
    assert change.path == r"EFI system partition: \EFI\Boot\bootx64.efi"


def test_a_loader_that_is_there_stays(tmp_path: Path) -> None:
    put(tmp_path, "esp/EFI/Microsoft/Boot/bootmgfw.efi", b"MZ manager")
    put(tmp_path, "esp/EFI/Boot/bootx64.efi", b"MZ other")
    repair_folder(guest(tmp_path / "c"), esp=tmp_path / "esp")
    assert (tmp_path / "esp/EFI/Boot/bootx64.efi").read_bytes() == b"MZ other"


def test_an_efi_partition_without_a_loader_is_refused(tmp_path: Path) -> None:
    (tmp_path / "esp").mkdir()
    with pytest.raises(MigrationFailed) as caught:
        repair_folder(guest(tmp_path / "c"), esp=tmp_path / "esp")
    assert caught.value.code == "efi-loader-missing"


def test_a_second_repair_changes_nothing(tmp_path: Path) -> None:
    put(tmp_path, "esp/EFI/Microsoft/Boot/bootmgfw.efi", b"MZ manager")
    windows = guest(tmp_path / "c", *TOOLS)
    assert repair_folder(windows, esp=tmp_path / "esp").changes != ()
    before = windows.system, windows.software
    assert repair_folder(windows, esp=tmp_path / "esp").changes == ()
    assert (windows.system, windows.software) == before


def test_without_drivers_windows_gets_devices_that_it_knows(tmp_path: Path) -> None:
    found = repair_folder(guest(tmp_path))
    capable = found.capabilities
    assert (capable.disk_bus, capable.nic_model, capable.rtc) == ("sata", "e1000e", "localtime")
    assert {"windows-no-virtio"} <= codes(found)
    assert next(one for one in found.concerns if one.code == "windows-no-virtio").level == "warning"


@pytest.mark.parametrize("bus", ["virtio", "scsi"])
def test_a_bus_without_a_driver_is_refused(bus: str, tmp_path: Path) -> None:
    with pytest.raises(MigrationFailed) as caught:
        repair_folder(guest(tmp_path), win_disk=bus)
    assert caught.value.code == "windows-disk-driver-missing"


RESTRICTED = nested(r"Policies\Microsoft\Windows\DeviceInstall\Restrictions", {"DenyUnspecified": dword(1)})


@pytest.mark.parametrize(
    ("keys", "policies", "code"),
    [
        ({}, RESTRICTED, "windows-device-policy"),
        (nested(r"Services\SAVService", {"Start": dword(2)}), {}, "windows-antivirus"),
        (
            nested(r"Control\Nsi\{eb004a01-9b1a-11d4-9123-0050047759bc}\10", {"x": (3, b"\0")}),
            {},
            "windows-ipv6-static",
        ),
    ],
)
def test_what_a_person_should_know(
    keys: Mapping[str, object], policies: Mapping[str, object], code: str, tmp_path: Path
) -> None:
    assert code not in codes(repair_folder(guest(tmp_path / "without")))
    assert code in codes(repair_folder(guest(tmp_path / "with", keys, policies=policies)))


def test_an_old_release_is_mentioned(tmp_path: Path) -> None:
    release = {**RELEASE, "CurrentBuildNumber": sz("7601"), "InstallationType": sz("Server")}
    windows = WindowsFolder(tmp_path, system_hive(), software_hive(release=release))
    assert "windows-best-effort" in codes(repair_folder(windows))


def test_the_facts_of_the_guest(tmp_path: Path) -> None:
    found = repair_folder(guest(tmp_path))
    assert (found.os_name, found.hostname, found.os_id) == ("Windows Server 2022 Standard", "WIN-DB01", "windows")
    assert found.windows is not None
    assert (found.windows.build, found.windows.control_set, found.windows.server) == (20348, "ControlSet001", True)
    assert found.windows.first_boot == ()


def test_device_path_stays_without_drivers(tmp_path: Path) -> None:
    windows = guest(tmp_path)
    repair_folder(windows)
    found = value_of(windows, r"SOFTWARE\Microsoft\Windows\CurrentVersion", "DevicePath")
    assert found is not None and (found.type, found.data) == expandable(r"%SystemRoot%\inf")
