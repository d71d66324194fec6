"""MAC addresses of network cards: their normal form, and the addresses that we assign."""

from __future__ import annotations

import hashlib
import re

SHAPE = re.compile(r"[0-9A-Fa-f]{1,2}(?:[:-][0-9A-Fa-f]{1,2}){5}")
OURS = "52:54:00"
"""The prefix that QEMU and libvirt assign; udev's old rule generator recognizes it and leaves it alone."""


def normal_mac(text: str) -> str | None:
    """The form `00:50:56:ab:cd:ef`; None for a group address, for zero, and for text that is not a MAC address."""
    if not SHAPE.fullmatch(text.strip()):
        return None
    octets = [int(octet, 16) for octet in re.split("[:-]", text.strip())]
    return None if octets[0] & 1 or not any(octets) else ":".join(f"{octet:02x}" for octet in octets)


def given_mac(vm_name: str, card: int = 0) -> str:
    """Always the same address for a name and card: DHCP leases and firewall rules outlive a second migration."""
    digest = hashlib.sha256(f"{vm_name}/{card}".encode() if card else vm_name.encode()).digest()
    return f"{OURS}:{digest[:3].hex(':')}"
