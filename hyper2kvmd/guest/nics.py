"""Network cards: those of a guest whose network configuration is not known, and MAC addresses that are new."""

from __future__ import annotations

from hyper2kvmd.mac import given_mac
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.guest import Guest, Nic
from hyper2kvmd.model.machine import SourceNic

MAX_CARDS = 16
"""More than VMware's ten; libvirt's root ports are limited."""


def nics_as_they_were(source: tuple[SourceNic, ...], vm_name: str) -> tuple[Nic, ...]:
    """The source's cards in its order; one card if none is known."""
    cards = source[:MAX_CARDS] or (SourceNic(mac=None),)
    return tuple(as_nic(card, number, vm_name) for number, card in enumerate(cards))


def as_nic(
    card: SourceNic, number: int, vm_name: str, *, name: str | None = None, configured: str | None = None
) -> Nic:
    """The card of the new machine, with the source's address, else the one that the guest configures, else a new one.

    `number` counts from 0. A repair that is repeated finds the new address in the guest's configuration.
    """
    mac = card.mac or configured or given_mac(vm_name, number)
    new = card.mac is None and mac in {given_mac(vm_name, one) for one in range(MAX_CARDS)}
    return Nic(name=name, mac=mac, mac_is_new=new, network=card.network, connected=card.connected)


def note_new_addresses(guest: Guest) -> tuple[Concern, ...]:
    new = [" ".join(filter(None, (nic.mac, nic.name and f"({nic.name})"))) for nic in guest.nics if nic.mac_is_new]
    if not new:
        return ()
    cards = (
        "1 network card gets a new MAC address" if len(new) == 1 else f"{len(new)} network cards get new MAC addresses"
    )
    why = "neither the source machine's description nor the guest has one"
    if guest.family == "none":
        why = "the source machine's description has none"
    note = Concern(
        code="mac-new",
        message=f"{cards}, because {why}: {', '.join(new)}",
        hint="Enter it where the old address is known, such as in DHCP, firewalls and licences",
        level="information",
    )
    return (note,)
