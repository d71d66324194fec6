"""The service of the first boot of Windows: when there is one, and what it is told. Its script is never run here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.guest.windows.registry import Hive, Value
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import SourceNic
from tests.support.hives import dword, sz
from tests.support.windows_guest import (
    STATIC,
    WindowsFolder,
    adapter,
    nested,
    repair_folder,
    software_hive,
    system_hive,
    value_of,
)

SERVICE = r"SYSTEM\Services\hyper2kvm-first-boot"
SCRIPT = "Windows/System32/config/hyper2kvm-first-boot.ps1"
CARD, OTHER = SourceNic(mac="00:50:56:01:aa:bb"), "00:50:56:01:aa:cc"


def guest(folder: Path, *keys: Mapping[str, object], policies: Mapping[str, object] | None = None) -> WindowsFolder:
    return WindowsFolder(folder, system_hive(*keys), software_hive(policies or {}))


def codes(found: Guest) -> set[str]:
    return {concern.code for concern in found.concerns}


def has_service(windows: WindowsFolder) -> bool:
    return (windows.folder / SCRIPT).exists() or value_of(windows, SERVICE, "Start") is not None


def first_boot(found: Guest) -> tuple[str, ...]:
    assert found.windows is not None
    return found.windows.first_boot


@pytest.mark.parametrize(
    ("keys", "asked"),
    [
        ((adapter(),), {}),
        ((), {}),
        ((adapter(settings=STATIC),), {"win_net": "dhcp"}),
        ((adapter(settings=STATIC, device=r"PCI\VEN_1AF4&DEV_1041&SUBSYS_11001AF4&REV_01\4&1"),), {}),
    ],
    ids=["dhcp", "no adapter", "asked for dhcp", "already on virtio"],
)
def test_nothing_to_do_is_no_service(
    keys: tuple[Mapping[str, object], ...], asked: Mapping[str, Any], tmp_path: Path
) -> None:
    windows = guest(tmp_path, *keys)
    found = repair_folder(windows, (CARD,), **asked)
    assert not has_service(windows)
    assert first_boot(found) == ()


def test_static_addresses_are_data_of_the_service(tmp_path: Path) -> None:
    windows = guest(tmp_path, adapter(settings=STATIC))
    found = repair_folder(windows, (CARD,))
    place = rf"{SERVICE}\Parameters\Network\00505601aabb"
    for name in ("EnableDHCP", "IPAddress", "SubnetMask", "DefaultGateway", "NameServer"):
        value = value_of(windows, rf"{place}\Tcpip", name)
        assert value is not None and (value.type, value.data) == STATIC[name]
    assert value_of(windows, rf"{place}\Tcpip", "DhcpIPAddress") is None
    assert value_of(windows, place, "Mac") == Value.sz("Mac", "00:50:56:01:AA:BB")
    assert value_of(windows, place, "Name") == Value.sz("Name", "Ethernet0")
    assert value_of(windows, rf"{SERVICE}\Parameters", "Steps") == Value.multi_sz("Steps", ["network"])
    shown, end = first_boot(found)
    assert "00:50:56:01:aa:bb" in shown and "192.0.2.10/24" in shown and "192.0.2.1" in shown
    assert r"C:\Windows\hyper2kvm-first-boot.txt" in end


def test_the_service_needs_no_program_but_those_of_windows(tmp_path: Path) -> None:
    windows = guest(tmp_path, adapter(settings=STATIC))
    repair_folder(windows, (CARD,))
    image = value_of(windows, SERVICE, "ImagePath")
    assert image is not None and image.text().startswith(r"%SystemRoot%\System32\cmd.exe /c start ")
    assert "C:" not in image.text()
    start, errors = value_of(windows, SERVICE, "Start"), value_of(windows, SERVICE, "ErrorControl")
    assert start and errors and (start.number(), errors.number()) == (2, 0)


def test_texts_of_the_guest_never_become_a_script(tmp_path: Path) -> None:
    """The script is the same for each guest, to the byte."""
    hostile = '"; Remove-Item C:\\ -Recurse; $(calc) `n'
    windows = guest(tmp_path, adapter(name=hostile, settings={**STATIC, "NameServer": sz(hostile)}))
    repair_folder(windows, (CARD,))
    script = resources.files("hyper2kvmd.guest.windows").joinpath("first_boot.ps1").read_bytes()
    assert (tmp_path / SCRIPT).read_bytes() == script
    service = Hive.parse(windows.system).find(r"ControlSet001\Services\hyper2kvm-first-boot")
    assert service is not None and not any("calc" in value.text() for value in service.values())


def test_the_script_tries_three_times_and_restarts_nothing() -> None:
    script = resources.files("hyper2kvmd.guest.windows").joinpath("first_boot.ps1").read_text(encoding="ascii")
    assert "$most = 3" in script
    for word in ("Restart-Computer", "shutdown", "Invoke-Expression", "iex ", "DownloadString", "http"):
        assert word.lower() not in script.lower()


def test_the_script_keeps_the_installer_of_an_agent_that_it_gave_up() -> None:
    script = resources.files("hyper2kvmd.guest.windows").joinpath("first_boot.ps1").read_text(encoding="ascii")
    assert "if ($agentIsInstalled) { Remove-Item -LiteralPath $agent " in script
    assert script.count("Remove-Item -LiteralPath $agent ") == 1
    assert "Write-Result \"finished with failures: $($failed -join ', ')\"" in script


def test_a_second_repair_stages_nothing(tmp_path: Path) -> None:
    windows = guest(tmp_path, adapter(settings=STATIC))
    repair_folder(windows, (CARD,))
    again = repair_folder(windows, (CARD,))
    assert again.changes == ()
    assert first_boot(again) != ()


def test_a_service_that_never_ran_is_replaced(tmp_path: Path) -> None:
    """A machine that was migrated, never started, and is migrated with other addresses."""
    windows = guest(tmp_path, adapter(settings=STATIC))
    asked = {"mac": "00:50:56:01:aa:bb", "address": "198.51.100.7/24"}
    repair_folder(windows, (CARD, SourceNic(mac=OTHER)), win_net=[asked, {**asked, "mac": OTHER}])
    other = rf"{SERVICE}\Parameters\Network\00505601aacc"
    assert value_of(windows, other, "Mac") is not None
    repair_folder(windows, (CARD,))
    assert value_of(windows, other, "Mac") is None
    assert value_of(windows, rf"{SERVICE}\Parameters\Network\00505601aabb", "Mac") is not None


def test_a_service_that_is_not_needed_any_more_is_removed(tmp_path: Path) -> None:
    windows = guest(tmp_path, adapter(settings=STATIC))
    repair_folder(windows, (CARD,))
    assert value_of(windows, SERVICE, "Start") is not None
    repair_folder(windows, (CARD,), win_net="dhcp")
    assert value_of(windows, SERVICE, "Start") is None


def test_addresses_of_the_migration(tmp_path: Path) -> None:
    asked = [
        {"mac": "00-50-56-01-AA-BB", "address": "198.51.100.7/25", "gateway": "198.51.100.1", "dns": "198.51.100.53"},
        {"mac": "00:50:56:00:00:99", "address": "198.51.100.8/25"},
    ]
    windows = guest(tmp_path, adapter())
    found = repair_folder(windows, (CARD,), win_net=asked)
    place = rf"{SERVICE}\Parameters\Network\00505601aabb\Tcpip"
    assert value_of(windows, place, "IPAddress") == Value.multi_sz("IPAddress", ["198.51.100.7"])
    assert value_of(windows, place, "SubnetMask") == Value.multi_sz("SubnetMask", ["255.255.255.128"])
    assert value_of(windows, place, "NameServer") == Value.sz("NameServer", "198.51.100.53")
    assert "windows-address-unused" in codes(found)


@pytest.mark.parametrize("source", [(SourceNic(mac="00:50:56:00:00:99"),), (SourceNic(mac=None), SourceNic(mac=None))])
def test_addresses_of_an_adapter_without_a_card_are_mentioned(source: tuple[SourceNic, ...], tmp_path: Path) -> None:
    windows = guest(tmp_path, adapter(settings=STATIC))
    found = repair_folder(windows, source)
    assert "windows-address-lost" in codes(found)
    assert not has_service(windows)


LISTED = {"mac": OTHER, "address": "198.51.100.7/24"}


@pytest.mark.parametrize(
    ("listed", "lost"),
    [
        ([LISTED], 1),
        ([LISTED, {"mac": CARD.mac, "address": "198.51.100.8/24"}], 0),
        ([{**LISTED, "address": "192.0.2.10/24"}], 1),
        ([{**LISTED, "address": "192.0.2.10/24"}, {"mac": "00:50:56:01:aa:dd", "address": "192.0.2.11/24"}], 0),
    ],
    ids=["other card", "its card", "one of its addresses", "all of its addresses"],
)
def test_addresses_of_adapters_that_a_list_leaves_out_are_mentioned(
    listed: list[dict[str, str]], lost: int, tmp_path: Path
) -> None:
    found = repair_folder(guest(tmp_path, adapter(settings=STATIC)), (CARD, SourceNic(mac=OTHER)), win_net=listed)
    assert [one.code for one in found.concerns].count("windows-address-lost") == lost


def test_a_first_boot_that_is_not_wanted(tmp_path: Path) -> None:
    windows = guest(tmp_path, adapter(settings=STATIC))
    found = repair_folder(windows, (CARD,), win_first_boot="never")
    assert not has_service(windows)
    (concern,) = [one for one in found.concerns if one.code == "windows-first-boot-off"]
    assert "Do it by hand: give the card 00:50:56:01:aa:bb the addresses 192.0.2.10/24" in concern.hint
    assert found.windows is not None
    (step,) = found.windows.by_hand
    assert step.startswith("Give the card 00:50:56:01:aa:bb the addresses 192.0.2.10/24, 192.0.2.11/24, the gateway ")
    assert "`netsh interface ipv4 set address NAME static 192.0.2.10 255.255.255.0 192.0.2.1`" in step
    assert "`netsh interface ipv4 add address NAME 192.0.2.11 255.255.255.0`" in step
    assert "`netsh interface ipv4 add dnsservers NAME 192.0.2.54`" in step


def test_tools_are_removed_if_there_are_any(tmp_path: Path) -> None:
    tools = nested(r"Services\VMTools", {"Start": dword(2)})
    assert first_boot(repair_folder(guest(tmp_path / "without"), win_tools="remove")) == ()
    lines = first_boot(repair_folder(guest(tmp_path / "with", tools), win_tools="remove"))
    assert lines[0] == "VMware Tools are uninstalled"


def test_a_policy_against_scripts_is_mentioned(tmp_path: Path) -> None:
    policy = nested(r"Policies\Microsoft\Windows\PowerShell", {"ExecutionPolicy": sz("AllSigned")})
    keys = adapter(settings=STATIC)
    blocked = repair_folder(guest(tmp_path / "a", keys, policies=policy), (CARD,))
    assert "windows-scripts-blocked" in codes(blocked)
    assert blocked.windows is not None and len(blocked.windows.by_hand) == 1
    assert "windows-scripts-blocked" not in codes(repair_folder(guest(tmp_path / "b", policies=policy), (CARD,)))


def test_an_agent_needs_a_source(tmp_path: Path) -> None:
    assert "windows-agent-missing" in codes(repair_folder(guest(tmp_path), win_agent=True))
