"""Network adapters in the registry of a Windows guest, and the cards of its new machine."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from hyper2kvmd.guest.windows.network import Adapter, decide_nics, find_adapters
from hyper2kvmd.model.machine import SourceNic
from tests.support.hives import dword, sz
from tests.support.windows_guest import (
    STATIC,
    VMXNET3,
    WindowsFolder,
    adapter,
    multi,
    nested,
    repair_folder,
    system_hive,
)

E1000E = r"PCI\VEN_8086&DEV_10D3&SUBSYS_07D015AD&REV_00"
GONE = "{AAAAAAAA-2222-3333-4444-555555555555}"
OTHER = "{99999999-2222-3333-4444-555555555555}"
ARRIVED = r"Properties\{83da6326-97a6-4088-9453-a1923f573b29}\0066"


def adapters(folder: Path, *keys: Mapping[str, object], source: tuple[SourceNic, ...] = ()) -> tuple[Adapter, ...]:
    with WindowsFolder(folder, system_hive(*keys)).opened() as (_, hives):
        control = hives.read("SYSTEM").find("ControlSet001")
        assert control is not None
        return find_adapters(control, control.find("Enum"), source)


def test_an_adapter_with_static_addresses(tmp_path: Path) -> None:
    (found,) = adapters(tmp_path, adapter(settings=STATIC))
    assert (found.name, found.mac) == ("Ethernet0", "00:50:56:01:aa:bb")
    assert found.is_static and found.is_configured
    assert found.addresses == ("192.0.2.10/24", "192.0.2.11/24")
    assert (found.gateways, found.name_servers) == (("192.0.2.1",), ("192.0.2.53", "192.0.2.54"))
    assert {one.value.name for one in found.settings} == set(STATIC) - {"DhcpIPAddress"}


def test_an_adapter_with_dhcp_needs_nothing(tmp_path: Path) -> None:
    (found,) = adapters(tmp_path, adapter())
    assert (found.is_static, found.is_configured, found.addresses) == (False, False, ())


def test_dhcp_with_name_servers_of_its_own_is_configured(tmp_path: Path) -> None:
    (found,) = adapters(tmp_path, adapter(settings={"EnableDHCP": dword(1), "NameServer": sz("192.0.2.53")}))
    assert (found.is_static, found.is_configured) == (False, True)


def test_a_mac_address_by_the_instance_of_a_pci_express_card(tmp_path: Path) -> None:
    (found,) = adapters(tmp_path, adapter(device=rf"{E1000E}\000C29FFFFF3FFDE00", permanent=""))
    assert found.mac == "00:0c:29:f3:ff:de"


def test_a_mac_address_by_the_slot_of_the_source(tmp_path: Path) -> None:
    source = (SourceNic(mac="00:50:56:00:00:01", slot=160), SourceNic(mac="00:50:56:00:00:02", slot=192))
    first = adapter(permanent="", node={"UINumber": dword(192)})
    second = adapter(
        OTHER,
        name="Backup",
        device=VMXNET3 + r"\4&2&0&00A8",
        permanent="",
        node={"LocationInformation": sz("@pci.sys,#65536;PCI bus %1, device %2, function %3;(3,0,0)")},
    )
    found = {one.name: one.mac for one in adapters(tmp_path, first, second, source=source)}
    assert found == {"Ethernet0": "00:50:56:00:00:02", "Backup": "00:50:56:00:00:01"}


def test_the_only_adapter_is_the_only_card(tmp_path: Path) -> None:
    (found,) = adapters(tmp_path, adapter(permanent=""), source=(SourceNic(mac="00:50:56:00:00:09"),))
    assert found.mac == "00:50:56:00:00:09"


def test_of_two_adapters_with_one_address_the_last_one_counts(tmp_path: Path) -> None:
    def plugged(guid: str, name: str, time: int) -> Mapping[str, object]:
        node = nested(ARRIVED, {"": (0xFFFF0010, struct.pack("<Q", time))})
        return adapter(guid, name=name, device=rf"{VMXNET3}\{time}", node=node)

    keys = plugged(OTHER, "Ethernet", 200), plugged(GONE, "Ghost", 100)
    assert [one.name for one in adapters(tmp_path, *keys)] == ["Ethernet"]


def test_adapters_that_are_no_hardware_are_left_out(tmp_path: Path) -> None:
    team = adapter(device=r"COMPOSITEBUS\MS_IMPLAT_MP\{1}", name="Team")
    assert adapters(tmp_path, team, adapter("not-a-guid", name="odd")) == ()


def test_addresses_of_virtual_adapters_are_named(tmp_path: Path) -> None:
    """Windows keeps them at a team or switch, whose network cards are gone."""
    automatic = {**STATIC, "IPAddress": multi("169.254.1.1"), "SubnetMask": multi("255.255.0.0")}
    keys = (
        adapter(name="Ethernet0"),
        adapter(OTHER, device=r"COMPOSITEBUS\MS_IMPLAT_MP\{1}", name="Team", settings=STATIC),
        adapter(GONE, device=r"ROOT\VMS_MP\0000", name="vEthernet (DHCP)"),
        adapter(GONE.replace("3", "4"), device=r"ROOT\NETFT\0000", name="Cluster", settings=automatic),
    )
    guest = WindowsFolder(tmp_path, system_hive(*keys))
    found = [one for one in repair_folder(guest).concerns if one.code == "windows-address-lost"]
    assert len(found) == 1
    for words in ("adapter Team", "192.0.2.10/24, 192.0.2.11/24", r"COMPOSITEBUS\MS_IMPLAT_MP\{1}"):
        assert words in found[0].message
    again = repair_folder(guest, win_net="dhcp")
    assert "windows-address-lost" not in {one.code for one in again.concerns}


def test_the_cards_are_those_of_the_source_with_the_guests_names(tmp_path: Path) -> None:
    found = adapters(tmp_path, adapter())
    source = (SourceNic(mac="00:50:56:01:aa:bb", network="lan"), SourceNic(mac="00:50:56:00:00:02"))
    assert [(nic.name, nic.mac, nic.network) for nic in decide_nics(found, source, "win")] == [
        ("Ethernet0", "00:50:56:01:aa:bb", "lan"),
        (None, "00:50:56:00:00:02", None),
    ]


def test_without_a_description_the_cards_are_those_of_the_guest(tmp_path: Path) -> None:
    (nic,) = decide_nics(adapters(tmp_path, adapter()), (), "win")
    assert (nic.name, nic.mac) == ("Ethernet0", "00:50:56:01:aa:bb")
    (generated,) = decide_nics((), (), "win")
    assert generated.mac.startswith("52:54:00:")


def test_what_is_no_address_is_not_shown(tmp_path: Path) -> None:
    odd = {**STATIC, "IPAddress": (7, "0.0.0.0\0x\x1b\0\0".encode("utf-16-le")), "DefaultGateway": (3, b"\xff")}
    (found,) = adapters(tmp_path, adapter(settings=odd))
    assert (found.addresses, found.gateways, found.is_static) == ((), (), False)


def test_only_so_many_adapters_are_read(tmp_path: Path) -> None:
    guids = (f"{{{number:08X}-2222-3333-4444-555555555555}}" for number in range(300))
    many = [adapter(guid, device=rf"{VMXNET3}\{guid[1:9]}", permanent="") for guid in guids]
    assert len(adapters(tmp_path, *many)) == 256


def test_what_is_too_long_is_not_kept(tmp_path: Path) -> None:
    (found,) = adapters(tmp_path, adapter(settings={**STATIC, "Domain": sz("x" * 9000)}))
    assert "Domain" not in {one.value.name for one in found.settings}
    assert found.is_static
