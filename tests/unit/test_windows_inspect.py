"""What the registry says about a Windows guest, and which guests are refused by name."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.windows.inspect import inspect_windows
from tests.support.hives import dword, hive, sz
from tests.support.windows_guest import CONFIG, RELEASE, WindowsFolder, nested, software_hive, system_hive


def test_a_server_by_its_registry(tmp_path: Path) -> None:
    found = WindowsFolder(tmp_path).inspected()
    assert (found.build, found.edition, found.version) == (20348, "ServerStandard", "21H2")
    assert (found.product_name, found.server) == ("Windows Server 2022 Standard", True)
    assert (found.architecture, found.control_set, found.hostname) == ("AMD64", "ControlSet001", "WIN-DB01")
    assert (found.system_root, found.rtc, found.support) == (r"C:\Windows", "localtime", "supported")


def test_the_current_control_set_counts(tmp_path: Path) -> None:
    other = nested(r"Control\ComputerName\ComputerName", {"ComputerName": sz("OTHER")})
    found = WindowsFolder(tmp_path, system_hive(other, current=2)).inspected()
    assert (found.control_set, found.hostname) == ("ControlSet002", "OTHER")


@pytest.mark.parametrize("value", [dword(1), (11, struct.pack("<Q", 1))])
def test_the_clock_in_utc_is_a_dword_or_a_qword(value: tuple[int, bytes], tmp_path: Path) -> None:
    universal = nested(r"Control\TimeZoneInformation", {"RealTimeIsUniversal": value})
    assert WindowsFolder(tmp_path, system_hive(universal)).inspected().rtc == "utc"


def test_windows_11_is_named_after_its_build(tmp_path: Path) -> None:
    release = {**RELEASE, "ProductName": sz("Windows 10 Pro"), "CurrentBuildNumber": sz("22631")}
    release["InstallationType"] = sz("Client")
    found = WindowsFolder(tmp_path, software=software_hive(release=release)).inspected()
    assert (found.product_name, found.server) == ("Windows 11 Pro", False)


@pytest.mark.parametrize(
    ("build", "kind", "architecture", "support"),
    [
        ("9600", "Server", "AMD64", "supported"),
        ("9600", "Client", "AMD64", "best effort"),
        ("9200", "Server", "AMD64", "best effort"),
        ("7601", "Server", "AMD64", "best effort"),
        ("10240", "Client", "AMD64", "supported"),
        ("19045", "Client", "x86", "best effort"),
    ],
)
def test_which_releases_are_supported(build: str, kind: str, architecture: str, support: str, tmp_path: Path) -> None:
    environment = nested(r"Control\Session Manager\Environment", {"PROCESSOR_ARCHITECTURE": sz(architecture)})
    release = {**RELEASE, "CurrentBuildNumber": sz(build), "InstallationType": sz(kind)}
    found = WindowsFolder(tmp_path, system_hive(environment), software_hive(release=release)).inspected()
    assert found.support == support


def refused(folder: WindowsFolder) -> MigrationFailed:
    with pytest.raises(MigrationFailed) as caught:
        folder.inspected()
    return caught.value


@pytest.mark.parametrize(
    ("build", "architecture", "words"),
    [("3790", "AMD64", "releases before Windows 7"), ("22631", "ARM64", "Windows for ARM64 is not supported")],
)
def test_other_windows_are_refused_by_name(build: str, architecture: str, words: str, tmp_path: Path) -> None:
    environment = nested(r"Control\Session Manager\Environment", {"PROCESSOR_ARCHITECTURE": sz(architecture)})
    release = {**RELEASE, "CurrentBuildNumber": sz(build)}
    failure = refused(WindowsFolder(tmp_path, system_hive(environment), software_hive(release=release)))
    assert failure.code == "windows-unsupported"
    assert words in failure.message and build in failure.message


@pytest.mark.parametrize(
    ("system", "release", "missing"),
    [
        (hive({"Select": {"Current": dword(0)}}), RELEASE, r"Select\Current"),
        (hive({"Select": {"Current": dword(1)}}), RELEASE, "ControlSet001"),
        (system_hive(), {**RELEASE, "CurrentBuildNumber": sz("²0348")}, "CurrentBuildNumber"),
        (system_hive(), {**RELEASE, "CurrentBuildNumber": sz("1" * 4000)}, "CurrentBuildNumber"),
    ],
)
def test_a_registry_without_what_counts(
    system: bytes, release: Mapping[str, object], missing: str, tmp_path: Path
) -> None:
    failure = refused(WindowsFolder(tmp_path, system, software_hive(release=release)))
    assert failure.code == "windows-registry-incomplete"
    assert missing in failure.message


def test_texts_of_the_registry_are_safe_to_show(tmp_path: Path) -> None:
    release = {**RELEASE, "ProductName": sz("Windows\x1b[31m\nServer\ud800" + "x" * 5000)}
    found = WindowsFolder(tmp_path, software=software_hive(release=release)).inspected()
    assert found.product_name.isprintable() and len(found.product_name) <= 200


@pytest.mark.parametrize(
    ("product", "installation", "server"),
    [
        ("WinNT", "Embedded", False),
        ("ServerNT", "Server Core", True),
        ("LanmanNT", "Server", True),
        ("ServerNT", "Client", True),
        ("", "Server", True),
        ("", "Client", False),
        ("", "", False),
    ],
)
def test_the_product_type_decides_which_drivers_fit(
    product: str, installation: str, server: bool, tmp_path: Path
) -> None:
    """As it does for Windows; a client with several sessions is a server for its drivers."""
    said = nested(r"Control\ProductOptions", {"ProductType": sz(product)})
    release = {**RELEASE, "InstallationType": sz(installation)}
    found = WindowsFolder(tmp_path, system_hive(said), software_hive(release=release)).inspected()
    assert found.server is server


def test_a_hive_that_is_missing(tmp_path: Path) -> None:
    with WindowsFolder(tmp_path).opened() as (_, hives):
        (tmp_path / CONFIG.lstrip("/") / "SOFTWARE").unlink()
        with pytest.raises(MigrationFailed) as caught:
            inspect_windows(hives, "/Windows")
    assert (caught.value.code, "the file SOFTWARE" in caught.value.message) == ("windows-registry-incomplete", True)
