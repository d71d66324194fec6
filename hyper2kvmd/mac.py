"""MAC addresses of network cards: their one normal form, and those that we give."""

from __future__ import annotations

import hashlib
import re

SHAPE = re.compile(r"[0-9A-Fa-f]{1,2}(?:[:-][0-9A-Fa-f]{1,2}){5}")
OURS = "52:54:00"
"""What QEMU and libvirt give; udev's old rule generator knows it and leaves it alone."""


def normal_mac(text: str) -> str | None:
    """`00:50:56:ab:cd:ef`; None for what no card can have: a group's address, zero, or no MAC address at all."""
    if not SHAPE.fullmatch(text.strip()):
        return None
    octets = [int(octet, 16) for octet in re.split("[:-]", text.strip())]
    return None if octets[0] & 1 or not any(octets) else ":".join(f"{octet:02x}" for octet in octets)


def given_mac(vm_name: str, card: int = 0) -> str:
    """The same one for the same name and card, always: DHCP leases and firewall rules outlive a second migration."""
    digest = hashlib.sha256(f"{vm_name}/{card}".encode() if card else vm_name.encode()).digest()
    return f"{OURS}:{digest[:3].hex(':')}"
