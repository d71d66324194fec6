"""DHCP clients whose identifier changes with the card's place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.guest_on_disk import migration, put, repaired, simple_layout

NETWORK = "etc/systemd/network/10.network"
NETPLAN = "etc/netplan/50.yaml"


@pytest.mark.parametrize(
    ("path", "text", "warned"),
    [
        (NETWORK, "[Network]\nDHCP=yes\n", True),
        (NETWORK, "[Network]\nDHCP=ipv6\n", False),
        (NETWORK, "[Network]\nDHCP=yes\n[DHCPv4]\nClientIdentifier=mac\n", False),
        (NETPLAN, "network: {ethernets: {ens192: {dhcp4: true}}}\n", True),
        (NETPLAN, "network: {ethernets: {ens192: {dhcp4: true, dhcp-identifier: mac}}}\n", False),
        (NETPLAN, "network:\n  renderer: NetworkManager\n  ethernets: {ens192: {dhcp4: true}}\n", False),
        (NETPLAN, "network: {ethernets: {ens192: {addresses: [10.0.2.77/24]}}}\n", False),
    ],
)
def test_it_is_warned_of(tmp_path: Path, path: str, text: str, warned: bool) -> None:
    put(tmp_path, "etc/os-release", "ID=ubuntu\n")
    put(tmp_path, "usr/.keep", "")
    put(tmp_path, path, text)
    guest = repaired({"partition 1": tmp_path}, simple_layout(), migration(regen_initramfs=False))
    assert any("identifier of the DHCP client" in warning for warning in guest.warnings) == warned
