"""Names of network cards on the kernel line."""

from __future__ import annotations

import pytest

from hyper2kvmd.guest.linux.network import kernel_line
from hyper2kvmd.guest.linux.network.selector import Selector
from hyper2kvmd.model.guest import Nic

MAC = "00:50:56:8a:10:02"
OLD = "00:0c:29:00:00:01"


def choose(selector: Selector) -> Nic | None:
    if "eth0" in selector.names:
        return Nic(name="eth0", mac=MAC)
    return Nic(name="ens192", mac=MAC) if "ens192" in selector.names or OLD in selector.macs else None


@pytest.mark.parametrize(
    "parameter",
    [
        "ip=ens192:dhcp",
        "ip=10.0.2.77::10.0.2.2:255.255.255.0:web01:ens192:none",
        "ip=:::::ens192:dhcp",
        "ip=[2001:db8::7]::[2001:db8::1]:64:web01:ens192:none",
        "vlan=vlan5:ens192",
        "vlan=ens192.5:ens192",
        "bond=bond0:ens192:mode=1",
        "bootdev=ens192",
        "rd.route=10.9.0.0/16:10.0.2.1:ens192",
    ],
)
def test_a_card_gets_its_name_by_mac_address(parameter: str) -> None:
    line = f"linux /vmlinuz root=UUID=1 {parameter} quiet"
    pinned = kernel_line.visit("", line, choose)
    assert pinned == f"linux /vmlinuz root=UUID=1 ifname=ens192:{MAC} {parameter} quiet"
    assert kernel_line.visit("", pinned, choose) == pinned
    assert kernel_line.visit("", line, choose, pins=False) == line


@pytest.mark.parametrize(
    "line",
    [
        "linux /vmlinuz ip=dhcp",
        "linux /vmlinuz ip=eth0:dhcp",
        "linux /vmlinuz ip=10.0.2.77::10.0.2.2:255.255.255.0:ens192:bond0:none",
        "linux /vmlinuz ip=ens224:dhcp",
        "# linux /vmlinuz ip=ens192:dhcp",
        f"linux /vmlinuz ifname=ens192:{MAC} ip=ens192:dhcp",
        "linux /vmlinuz zip=ens192:dhcp",
    ],
)
def test_other_lines_stay(line: str) -> None:
    """A host name is no card, the kernel's own names are kept by order, and a comment is a comment."""
    assert kernel_line.visit("", line, choose) == line


def test_addresses_of_another_card_are_replaced() -> None:
    line = f"linux /vmlinuz ifname=ens192:{OLD} ip=ens192:dhcp BOOTIF=01-{OLD.replace(':', '-')}"
    after = f"linux /vmlinuz ifname=ens192:{MAC} ip=ens192:dhcp BOOTIF=01-{MAC.replace(':', '-')}"
    assert kernel_line.visit("", line, choose) == after


@pytest.mark.parametrize("setting", ["IP=10.0.2.77::10.0.2.2:255.255.255.0:web01:ens192:off", 'DEVICE="ens192"'])
def test_settings_of_initramfs_tools_name_cards(setting: str) -> None:
    found: list[Selector] = []
    kernel_line.visit_settings("", f"BUSYBOX=auto\n{setting}\n", found.append)
    assert [selector.names for selector in found] == [("ens192",)]


@pytest.mark.parametrize(
    ("line", "needed"),
    [("rd.neednet=1", True), ("root=nfs:10.0.0.1:/srv", True), ("# ip=dhcp", False), ("vip=1 root=UUID=1", False)],
)
def test_an_initramfs_with_a_network_needs_its_driver(line: str, needed: bool) -> None:
    assert kernel_line.needs_network(line) == needed
