"""The network cards in a .vmx."""

from __future__ import annotations

from hyper2kvmd.mac import normal_mac
from hyper2kvmd.machines.vmx.settings import Settings
from hyper2kvmd.model.machine import SourceNic

MAX_NICS = 10
"""ethernet0 to ethernet9."""
SLOTS = range(10_000)
LONGEST_NAME = 255


def read_nics(settings: Settings) -> tuple[SourceNic, ...]:
    """The cards that are present, in the order of their numbers."""
    numbers = [number for number in range(MAX_NICS) if settings.flag(f"ethernet{number}.present")]
    return tuple(_nic(settings, f"ethernet{number}.") for number in numbers)


def _nic(settings: Settings, card: str) -> SourceNic:
    return SourceNic(
        mac=normal_mac(settings.text(card + address_key(settings, card))),
        slot=settings.number(card + "pcislotnumber", SLOTS),
        network=_network(settings, card),
        connected=settings.flag(card + "startconnected", default=True),
    )


def address_key(settings: Settings, card: str) -> str:
    """The key of the MAC address: one that a person set, or the one that ESXi or vCenter generated.

    Source: libvirt, virVMXParseEthernet.
    """
    return "address" if settings.text(card + "addresstype").lower() == "static" else "generatedaddress"


def _network(settings: Settings, card: str) -> str | None:
    """The port group, by name or by the ID that a distributed switch has for it; on Workstation the virtual network."""
    connection = settings.text(card + "connectiontype").lower()
    names = (
        settings.text(card + "networkname"),
        settings.text(card + "dvs.portgroupid"),
        settings.text(card + "opaquenetwork.id"),
        settings.text(card + "vnet") if connection in ("", "custom") else connection,
    )
    name = next(filter(None, names), "")[:LONGEST_NAME]
    return name if name and name.isprintable() else None
