"""DHCP of systemd-networkd, also below netplan: warned about, not changed.

Its client identifier contains a hash of the card's name by its place on the bus (IAID), and that place is another one
on KVM. A server that knows the MAC address gives the same address, another one may not. Sources: systemd.network(5),
dhcp_identifier_set_iaid in sd-dhcp; netplan's YAML reference (dhcp-identifier).
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, always, regular_files

NETWORKD = re.compile(r"^[ \t]*DHCP[ \t]*=[ \t]*(yes|true|both|ipv4|v4|1|on)[ \t]*$", re.MULTILINE | re.IGNORECASE)
BY_MAC = re.compile(r"^[ \t]*ClientIdentifier[ \t]*=[ \t]*mac\b|^[ \t]*IAID[ \t]*=", re.MULTILINE)
NETPLAN = re.compile(r"\bdhcp4:[ \t]*[\"']?(true|yes|on)\b", re.IGNORECASE)
NETPLAN_BY_MAC = re.compile(r"dhcp-identifier:[ \t]*[\"']?mac\b|renderer:[ \t]*[\"']?NetworkManager\b")
PLACES = (
    ("/etc/systemd/network/*.network", NETWORKD, BY_MAC),
    ("/etc/netplan/*.yaml", NETPLAN, NETPLAN_BY_MAC),
)


def apply(case: Case) -> list[str]:
    warnings = []
    for pattern, dhcp, by_mac in PLACES:
        texts = {path: case.tree.read_text(path) for path in regular_files(case, pattern)}
        if not any(by_mac.search(text) for text in texts.values()):
            warnings += [_warning(path) for path, text in texts.items() if dhcp.search(text)][:1]
    return warnings


def _warning(path: str) -> str:
    fact = f"{path}: the identifier of the DHCP client depends on the card's place, which changed"
    return f"{fact}, so another address may be assigned. Reserve its address by MAC address, which stays."


FIX = Fix("dhcp-identity", required=False, wanted=always, apply=apply)
