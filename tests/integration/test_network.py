"""The whole way of a static address: from a guest on VMware to the same name and address on KVM."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guests.debian12 import Recipe, disk
from tests.guests.networked import Card, address, card, migrated, see


@pytest.mark.slow
def test_a_static_address_on_ens192_is_there_after_the_migration(
    service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    """As two of ifupdown's are in tests/guests/test_network.py."""
    del installed_helper
    files = {
        "etc/systemd/network/10-lan.network": "[Match]\nName=ens192\nDriver=vmxnet3\n\n"
        "[Network]\nAddress=10.20.30.40/24\n",
    }
    cards = (Card("00:50:56:8a:10:01", 192),)
    domain = migrated(disk(Recipe()), files, cards, service_folder, enabled=("systemd-networkd.service",))
    see(domain, card("ens192", cards[0].mac), *address("ens192", "10.20.30.40/24"))
