"""After a migration each interface has the name and the address that the guest's configuration gives it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.guests.guest import disk
from tests.guests.network_stacks import GUEST
from tests.guests.networked import Card, address, card, migrated, see

CARDS = (Card("00:50:56:8a:10:02", 224), Card("00:50:56:8a:10:01", 192), Card("00:50:56:8a:10:03", 256))
"""In no order, as a machine has them whose cards were exchanged over the years."""
NETWORKD = ("systemd-networkd.service",)
NO_MANAGER = ("NetworkManager.service", "NetworkManager-wait-online.service")
NO_NETWORKD = ("systemd-networkd.service", "systemd-networkd.socket", "systemd-networkd-wait-online.service")

IFUPDOWN = {
    "etc/network/interfaces": "auto lo\niface lo inet loopback\n\n"
    "auto ens192\niface ens192 inet static\n    address 10.20.30.40/24\n"
    "    up ethtool -G ens192 rx 4096\n\n"
    "allow-hotplug ens224\niface ens224 inet static\n    address 10.20.31.40/24\n",
}
PERSISTENT_RULES = {
    "etc/network/interfaces": "auto eth0\niface eth0 inet static\n    address 10.20.30.40/24\n\n"
    "auto eth1\niface eth1 inet static\n    address 10.20.31.40/24\n",
    "etc/udev/rules.d/70-persistent-net.rules": "".join(
        f'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="vmxnet3", ATTR{{address}}=="{mac}", NAME="{name}"\n'
        for mac, name in (("00:50:56:8a:10:01", "eth0"), ("00:50:56:8a:10:02", "eth1"))
    ),
}
MANAGER = {
    "etc/NetworkManager/system-connections/lan.nmconnection": "[connection]\nid=lan\ntype=ethernet\n"
    "interface-name=ens192\n\n[ipv4]\naddress1=10.20.30.40/24\nmethod=manual\n",
    "etc/NetworkManager/system-connections/dmz.nmconnection": "[connection]\nid=dmz\ntype=ethernet\n\n"
    "[ethernet]\n\n[match]\npath=pci-0000:13:00.0;\n\n[ipv4]\naddress1=10.20.31.40/24\nmethod=manual\n",
}
NETPLAN = {
    "etc/netplan/50-cloud-init.yaml": "network:\n  version: 2\n  ethernets:\n"
    "    ens192:\n      match: {macaddress: '00:0c:29:00:00:01'}\n      set-name: ens192\n"
    "      addresses: [10.20.30.40/24]\n"
    "    other:\n      match: {driver: vmxnet3, name: ens224}\n      addresses: [10.20.31.40/24]\n",
}


@pytest.mark.parametrize(
    ("files", "masked", "names"),
    [
        pytest.param(IFUPDOWN, (*NO_MANAGER, *NO_NETWORKD), ("ens192", "ens224"), id="ifupdown"),
        pytest.param(
            PERSISTENT_RULES,
            (*NO_MANAGER, *NO_NETWORKD),
            ("eth0", "eth1"),
            id="persistent-rules",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            MANAGER,
            (*NO_NETWORKD, "networking.service"),
            ("ens192", "ens224"),
            id="networkmanager",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            NETPLAN, (*NO_MANAGER, "networking.service"), ("ens192", "ens224"), id="netplan", marks=pytest.mark.slow
        ),
    ],
)
def test_names_and_addresses_stay(
    files: Mapping[str, str],
    masked: tuple[str, ...],
    names: tuple[str, str],
    service_folder: Path,
    installed_helper: tuple[str, ...],
) -> None:
    del installed_helper
    domain = migrated(disk(GUEST), files, CARDS, service_folder, masked=masked)
    first, second = names
    see(
        domain,
        card(first, "00:50:56:8a:10:01"),
        card(second, "00:50:56:8a:10:02"),
        *address(first, "10.20.30.40/24"),
        *address(second, "10.20.31.40/24"),
    )


@pytest.mark.slow
def test_a_bond_and_vlans_over_cards(service_folder: Path, installed_helper: tuple[str, ...]) -> None:
    """A VLAN has the MAC address of its card: the rule that names the card must not name the VLAN."""
    del installed_helper
    files = {
        "etc/systemd/network/10-bond.netdev": "[NetDev]\nName=bond0\nKind=bond\n\n[Bond]\nMode=active-backup\n",
        "etc/systemd/network/20-vlan.netdev": "[NetDev]\nName=vlan100\nKind=vlan\n\n[VLAN]\nId=100\n",
        "etc/systemd/network/10-cards.network": "[Match]\nName=ens192 ens224\n\n[Network]\nBond=bond0\n",
        "etc/systemd/network/20-bond.network": "[Match]\nName=bond0\n\n[Network]\nAddress=10.20.30.40/24\n"
        "VLAN=vlan100\n",
        "etc/systemd/network/30-vlan.network": "[Match]\nName=vlan100\n\n[Network]\nAddress=10.20.100.40/24\n",
        "etc/systemd/network/40-path.network": "[Match]\nPath=pci-0000:1b:00.0\n\n"
        "[Network]\nAddress=10.20.31.40/24\nVLAN=vlan200\n",
        "etc/systemd/network/50-vlan.netdev": "[NetDev]\nName=vlan200\nKind=vlan\n\n[VLAN]\nId=200\n",
        "etc/systemd/network/50-vlan.network": "[Match]\nName=vlan200\n\n[Network]\nAddress=10.20.200.40/24\n",
    }
    masked = (*NO_MANAGER, "networking.service")
    domain = migrated(disk(GUEST), files, CARDS, service_folder, enabled=NETWORKD, masked=masked)
    see(
        domain,
        r"^Slave Interface: ens192$",
        r"^Slave Interface: ens224$",
        *address("bond0", "10.20.30.40/24"),
        *address("vlan100", "10.20.100.40/24"),
        *address("ens256", "10.20.31.40/24"),
        card("vlan200", CARDS[2].mac),
        *address("vlan200", "10.20.200.40/24"),
    )
