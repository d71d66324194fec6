"""Keys for Windows guests whose values contradict each other."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hyper2kvmd.mac import normal_mac
from hyper2kvmd.model.asked import Migration, StaticAddress
from hyper2kvmd.yaml_binding import TRUE
from hyper2kvmd.yaml_source import Mapping, Scalar

LONGEST_NETWORK = 30
"""The longest prefix of a network whose first and last address belong to no card (RFC 3021)."""


@dataclass(frozen=True)
class Fault:
    fact: str
    remedy: str


def tools_by_older_key(root: Mapping) -> dict[str, object]:
    """The default of `win_tools`: `remove_vmware_tools: true` means the same for Windows."""
    is_asked = any(
        entry.key == "remove_vmware_tools" and isinstance(entry.value, Scalar) and entry.value.text.lower() in TRUE
        for entry in root.entries
    )
    return {"win_tools": "remove"} if is_asked else {}


def address_faults(asked: Migration) -> Iterator[Fault]:
    """What is wrong with the addresses in `win_net`, each of which is valid by itself."""
    if isinstance(asked.win_net, str):
        return
    if not asked.win_net:
        yield Fault(
            "win_net is an empty list", "Write win_net: dhcp for cards without settings, or list their addresses"
        )
    for one in asked.win_net:
        yield from _faults(one)
    for mac in _repeated([normal_mac(one.mac) or one.mac for one in asked.win_net]):
        yield Fault(f"win_net has two addresses for the card {mac}", "Keep one of them: a card gets one address")
    for ip in _repeated([one.address.partition("/")[0] for one in asked.win_net]):
        yield Fault(f"win_net gives {ip} to two cards", "Give each card an address of its own")


def _faults(one: StaticAddress) -> Iterator[Fault]:
    if normal_mac(one.mac) is None:
        yield Fault(f"win_net: {one.mac} is no MAC address of a card", "Write one that `h2kvmctl plan` shows")
    interface = ipaddress.IPv4Interface(one.address)
    ip, network = interface.ip, interface.network
    remedy = "Write the address of one host in its network, such as 10.0.0.5/24"
    if ip.is_multicast or ip.is_loopback or ip.is_unspecified or ip.is_reserved:
        yield Fault(f"win_net: {one.address} is no address of a network card", remedy)
    elif network.prefixlen <= LONGEST_NETWORK and ip == network.network_address:
        yield Fault(f"win_net: {ip} is the address of the network {network} itself", remedy)
    elif network.prefixlen <= LONGEST_NETWORK and ip == network.broadcast_address:
        yield Fault(f"win_net: {ip} is the broadcast address of the network {network}", remedy)
    if one.gateway is None:
        return
    if one.gateway == str(ip):
        yield Fault(f"win_net: {ip} has itself as its gateway", "Write the address of the router, or remove gateway")
    elif network.prefixlen < ip.max_prefixlen and ipaddress.IPv4Address(one.gateway) not in network:
        fact = f"win_net: the gateway {one.gateway} is outside of {network}, the network of {one.address}"
        yield Fault(fact, "Correct the gateway, or the prefix length of the address")


def _repeated(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if values.count(value) > 1))
