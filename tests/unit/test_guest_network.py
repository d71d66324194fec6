"""Which cards a guest's configuration means, and what becomes of it; whole guests are in tests/golden/net-*."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from hyper2kvmd.guest.linux.fixes import nic_names
from hyper2kvmd.guest.nics import nics_as_they_were, note_new_addresses
from hyper2kvmd.mac import given_mac, normal_mac
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import SourceNic
from tests.support.guest_on_disk import GOLDEN, ROOT_UUID, files_below, migration, put, repaired, simple_layout

A, B, C = "00:50:56:8a:10:01", "00:50:56:8a:10:02", "00:50:56:8a:10:03"
ADDRESS = re.compile(
    r"\d+\.\d+\.\d+\.\d+|[0-9a-f]+::|dhcp|address\d*\b(?!})|gateway|netmask|prefix|dns|nameserver|route|via|bootproto|method=",
    re.IGNORECASE,
)
RULES = re.compile(r"SUBSYSTEM==|MACAddress=|mac-?address", re.IGNORECASE)


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    put(tmp_path, "etc/os-release", "ID=debian\n")
    put(tmp_path, "usr/lib/udev/rules.d/80-net-setup-link.rules", "#\n")
    return tmp_path


def repair(guest: Path, *nics: SourceNic) -> Guest:
    asked = migration(regen_initramfs=False)
    found = repaired({"partition 1": guest}, simple_layout(), asked, nics)
    again = repaired({"partition 1": guest}, simple_layout(), asked, nics)
    assert (again.changes, again.nics) == ((), found.nics)
    return found


def cards(found: Guest) -> list[tuple[str | None, str]]:
    return [(nic.name, nic.mac) for nic in found.nics]


def rules(guest: Path) -> str:
    path = guest / nic_names.RULES.lstrip("/")
    return path.read_text() if path.exists() else ""


# ---------------------------------------------------------------- addresses

IFNAME = re.compile(r"ifname=\S+ ")


def bearing_addresses(folder: Path) -> Counter[tuple[str, str]]:
    """Every line of a configuration that holds or asks for an address; those that name cards are left out.

    So are the parameters that name cards on a kernel line, beside one that holds an address.
    """
    found: Counter[tuple[str, str]] = Counter()
    for name, content in files_below(folder).items():
        if isinstance(content, bytes):
            lines = content.decode(errors="replace").splitlines()
            found.update(
                (name, IFNAME.sub("", line)) for line in lines if ADDRESS.search(line) and not RULES.search(line)
            )
    return found


@pytest.mark.parametrize("case", sorted(path.name for path in GOLDEN.iterdir()))
def test_no_line_with_an_address_changes(case: str) -> None:
    before, after = bearing_addresses(GOLDEN / case / "before"), bearing_addresses(GOLDEN / case / "after")
    assert before == after
    assert before or not case.startswith("net-")


# ---------------------------------------------------------------- which card is which


def test_a_guest_without_any_configuration_gets_one_card_and_no_rule(guest: Path) -> None:
    assert cards(repair(guest)) == [(None, given_mac("web01"))]
    assert rules(guest) == ""


def test_without_a_vmx_the_address_is_the_one_that_the_guest_knows_else_one_of_the_name(guest: Path) -> None:
    put(guest, "etc/network/interfaces", "auto ens192 ens224\n")
    put(guest, "etc/udev/rules.d/70-persistent-net.rules", f'SUBSYSTEM=="net", ATTR{{address}}=="{A}", NAME="ens224"\n')
    assert cards(repair(guest)) == [("ens192", given_mac("web01")), ("ens224", A)]


def test_a_description_without_addresses_leaves_the_guest_its_own(guest: Path) -> None:
    put(guest, "etc/sysconfig/network-scripts/ifcfg-eth0", f"DEVICE=eth0\nHWADDR={A}\n")
    found = repair(guest, SourceNic(mac=None, network="LAN"))
    assert [(nic.name, nic.mac, nic.mac_is_new, nic.network) for nic in found.nics] == [("eth0", A, False, "LAN")]
    assert note_new_addresses(found) == ()


def test_addresses_that_nothing_contains_are_named_as_new(guest: Path) -> None:
    put(guest, "etc/network/interfaces", "auto ens192\nauto ens224\n")
    found = repair(guest, SourceNic(mac=None, slot=192), SourceNic(mac=A, slot=224))
    assert [(nic.mac, nic.mac_is_new) for nic in found.nics] == [(given_mac("web01"), True), (A, False)]
    (warning,) = note_new_addresses(found)
    assert (warning.code, warning.level) == ("mac-new", "information")
    assert warning.message.startswith("1 network card gets a new MAC address")
    assert warning.message.endswith(f": {given_mac('web01')} (ens192)")
    both = Guest(nics=nics_as_they_were((SourceNic(mac=None), SourceNic(mac=None)), "web01"))
    (warning,) = note_new_addresses(both)
    assert warning.message.startswith("2 network cards get") and given_mac("web01", 1) in warning.message
    assert "nor the guest" in warning.message
    (warning,) = note_new_addresses(both.with_changes(family="none"))
    assert "the guest" not in warning.message


def test_addresses_are_each_vms_and_each_cards_own() -> None:
    made = {given_mac(name, number) for name in ("web01", "web02") for number in range(4)}
    assert len(made) == 8
    assert all(normal_mac(one) == one and one.startswith("52:54:00:") for one in made)


def test_cards_keep_their_networks_in_whatever_order_they_come(guest: Path) -> None:
    put(guest, "etc/network/interfaces", "auto ens192\nauto ens224\n")
    source = (SourceNic(mac=B, slot=224, network="DMZ"), SourceNic(mac=A, slot=192, network="LAN"))
    assert [(nic.mac, nic.network) for nic in repair(guest, *source).nics] == [(A, "LAN"), (B, "DMZ")]
    assert [nic.network for nic in nics_as_they_were(source, "web01")] == ["DMZ", "LAN"]


def test_slots_tell_which_card_is_which(guest: Path) -> None:
    put(guest, "etc/network/interfaces", "auto ens192\nauto ens224\n")
    found = repair(guest, SourceNic(mac=B, slot=224), SourceNic(mac=C, slot=256), SourceNic(mac=A, slot=192))
    assert cards(found) == [("ens192", A), ("ens224", B), ("ens256", C)]


def test_ethn_gets_the_place_where_the_kernel_calls_it_so(guest: Path) -> None:
    put(guest, "etc/network/interfaces", "auto eth1\n")
    put(guest, "boot/grub/grub.cfg", f"linux /vmlinuz root=UUID={ROOT_UUID} net.ifnames=0\n")
    put(guest, "etc/udev/rules.d/70-persistent-net.rules", f'SUBSYSTEM=="net", ATTR{{address}}=="{A}", NAME="eth1"\n')
    assert cards(repair(guest, SourceNic(mac=A), SourceNic(mac=B))) == [(None, B), ("eth1", A)]


def test_there_is_an_end_to_cards(guest: Path) -> None:
    put(guest, "etc/network/interfaces", "auto " + " ".join(f"eth{number}" for number in range(200)) + "\n")
    found = repair(guest)
    assert [nic.name for nic in found.nics] == [f"eth{number}" for number in range(16)]
    assert "configures 200 network cards" in found.warnings[0]


def test_a_card_that_the_source_has_not_is_told_and_left_alone(guest: Path) -> None:
    stale = f"DEVICE=eth0\nHWADDR={C}\nIPADDR=10.0.0.1\n"
    put(guest, "etc/sysconfig/network-scripts/ifcfg-eth0", stale)
    put(guest, "etc/sysconfig/network-scripts/ifcfg-eth1", f"DEVICE=eth1\nHWADDR={A}\n")
    found = repair(guest, SourceNic(mac=A))
    assert cards(found) == [("eth1", A)]
    assert "the source has 1 network card, none matches eth0: that configuration is unchanged" in found.warnings[0]
    assert (guest / "etc/sysconfig/network-scripts/ifcfg-eth0").read_text() == stale


def test_a_place_on_the_bus_tells_the_slot_whatever_the_order(guest: Path) -> None:
    """Another card would put the address on another network."""
    dmz = put(guest, "etc/systemd/network/10-dmz.network", "[Match]\nPath=pci-0000:13:00.0\n")
    lan = put(guest, "etc/systemd/network/20-lan.network", "[Match]\nPath=pci-0000:03:00.0\n")
    found = repair(guest, SourceNic(mac=A, slot=160), SourceNic(mac=B, slot=224))
    assert cards(found) == [("ens160", A), ("ens224", B)]
    assert (dmz.read_text(), lan.read_text()) == ("[Match]\nName=ens224\n", "[Match]\nName=ens160\n")


@pytest.mark.parametrize("place", ["pci-0000:04:00.0", "pci-0000:1b:00.0", "pci-*", "platform-eth"])
def test_a_place_that_tells_no_card_is_never_guessed(guest: Path, place: str) -> None:
    path = put(guest, "etc/systemd/network/10-dmz.network", f"[Match]\nPath={place}\n")
    found = repair(guest, SourceNic(mac=A, slot=160), SourceNic(mac=B, slot=224))
    assert path.read_text() == f"[Match]\nPath={place}\n"
    assert f"none matches {place.removeprefix('pci-') if ':' in place else place}" in found.warnings[0]


def test_a_rule_by_place_tells_the_card_of_a_name(guest: Path) -> None:
    put(guest, "etc/network/interfaces", "auto eth0\nauto eth1\n")
    lines = [
        f'SUBSYSTEM=="net", KERNELS=="{place}", NAME="{name}"\n'
        for place, name in (("0000:13:00.0", "eth0"), ("0000:03:00.0", "eth1"))
    ]
    put(guest, "etc/udev/rules.d/70-persistent-net.rules", "".join(lines))
    found = repair(guest, SourceNic(mac=A, slot=160), SourceNic(mac=B, slot=224))
    assert (cards(found), found.warnings) == ([("eth0", B), ("eth1", A)], ())


def test_names_that_nothing_tells_follow_the_bus_and_that_is_said(guest: Path) -> None:
    put(guest, "etc/network/interfaces", "auto eth0\nauto eth1\nauto eth2\n")
    found = repair(guest, SourceNic(mac=A, slot=192), SourceNic(mac=B, slot=160), SourceNic(mac=C, slot=1184))
    assert cards(found) == [("eth0", B), ("eth1", C), ("eth2", A)]
    assert "it is unclear which card is eth0, eth1, eth2" in found.warnings[0]


def test_a_further_function_of_a_port_counts_on_from_its_slot(guest: Path) -> None:
    put(guest, "etc/network/interfaces", "auto ens161\nauto ens193\n")
    found = repair(guest, SourceNic(mac=A, slot=1216), SourceNic(mac=B, slot=1184))
    assert (cards(found), found.warnings) == ([("ens161", B), ("ens193", A)], ())


def test_two_names_for_one_card(guest: Path) -> None:
    for name in ("ens33", "ens192"):
        put(guest, f"etc/sysconfig/network-scripts/ifcfg-{name}", f"DEVICE={name}\nHWADDR={A}\n")
    found = repair(guest)
    assert cards(found) == [("ens192", A)]
    assert "ens192 and ens33 are configured for one card" in found.warnings[0]


@pytest.mark.parametrize(
    ("pattern", "name"), [("en*", None), ("e*", None), ("ens*", "ens192"), ("eth*", "eth0"), ("ens3?", "ens33")]
)
def test_a_pattern_of_names_goes_on_to_match(guest: Path, pattern: str, name: str | None) -> None:
    put(guest, "etc/systemd/network/lan.network", f"[Match]\nName={pattern}\n\n[Network]\nDHCP=yes\n")
    assert [nic.name for nic in repair(guest).nics] == [name]


def test_masked_predictable_names_are_the_kernels(guest: Path) -> None:
    put(guest, "etc/systemd/network/lan.network", "[Match]\nName=eth*\n")
    mask = guest / "etc/udev/rules.d/80-net-setup-link.rules"
    mask.parent.mkdir(parents=True)
    mask.symlink_to("/dev/null")
    assert [nic.name for nic in repair(guest).nics] == [None]


# ---------------------------------------------------------------- hostile texts


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/netplan/a.yaml", "network: &a {ethernets: {ens192: *a}}\n"),
        ("etc/netplan/a.yaml", "network:\n  ethernets: [ens192]\n"),
        ("etc/netplan/a.yaml", "{" * 5000),
        ("etc/netplan/a.yaml", "network: {ethernets: {ens192: {match: {macaddress: '" + "0" * 70000 + "'}}}}\n"),
        ("etc/netplan/a.yaml", b"network:\n  ethernets:\n    \xff\xfe: {}\n"),
        ("etc/network/interfaces", "source /etc/network/interfaces\nsource ../../etc/network/*\nauto\niface\n"),
        ("etc/network/interfaces", b"#" * (5 << 20)),
        ("etc/systemd/network/a.network", "[Match\n]=\n[]\n=x\nName=\x00\n"),
        ("etc/udev/rules.d/a.rules", 'SUBSYSTEM=="net", NAME="' + "x" * 100000 + '"\n'),
        ("etc/NetworkManager/system-connections/a", b"\xff[connection]\ntype=ethernet\ninterface-name=\xff\n"),
    ],
    ids=range(10),
)
def test_a_text_that_is_not_understood_is_at_most_a_warning(guest: Path, path: str, text: str | bytes) -> None:
    place = put(guest, path, text)
    put(guest, "etc/sysconfig/network-scripts/ifcfg-ens160", f"DEVICE=ens160\nHWADDR={A}\n")
    before = place.read_bytes()
    found = repair(guest)
    assert ("ens160", A) in cards(found)
    assert place.read_bytes() == before


@pytest.mark.parametrize("name", ['x", RUN+="/bin/sh', "a b", "$(id)", "ens192\\", "a" * 16, "..", "%k"])
def test_no_name_breaks_out_of_its_rule(guest: Path, name: str) -> None:
    put(guest, "etc/sysconfig/network-scripts/ifcfg-a", f"DEVICE='{name}'\nHWADDR={A}\n")
    put(
        guest,
        "etc/netplan/a.yaml",
        f"network: {{ethernets: {{a: {{match: {{macaddress: '{B}'}}, set-name: '{name}'}}}}}}\n",
    )
    put(guest, "etc/udev/rules.d/9.rules", f'SUBSYSTEM=="net", ATTR{{address}}=="{C}", NAME="{name}"\n')
    repair(guest)
    for line in rules(guest).splitlines()[1:]:
        assert re.fullmatch(r'.*, ATTR\{type\}=="1", NAME="[A-Za-z0-9][A-Za-z0-9_.-]{0,14}"', line)
        assert line.count('"') == 12


@pytest.mark.parametrize("text", ["", "00:00:00:00:00:00", "01:00:5e:00:00:01", "00:50:56:8a:10", "g0:50:56:8a:10:01"])
def test_what_is_no_address_of_a_card(text: str) -> None:
    assert normal_mac(text) is None


def test_addresses_as_people_write_them() -> None:
    assert normal_mac(" 00-50-56-8A-10-01 ") == normal_mac("0:50:56:8a:10:1") == A
