"""The network cards of a guest whose network configuration is not known."""

from __future__ import annotations

from hyper2kvmd.mac import given_mac
from hyper2kvmd.model.guest import Nic
from hyper2kvmd.model.machine import SourceNic

MAX_CARDS = 16
"""More than VMware's ten; libvirt's root ports are limited."""


def nics_as_they_were(source: tuple[SourceNic, ...], vm_name: str) -> tuple[Nic, ...]:
    """The source's cards in its order; one card if none is known."""
    cards = source[:MAX_CARDS] or (SourceNic(mac=None),)
    return tuple(
        Nic(name=None, mac=card.mac or given_mac(vm_name, number), network=card.network)
        for number, card in enumerate(cards)
    )
