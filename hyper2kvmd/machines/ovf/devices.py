"""Network cards and other devices of a system, and concerns about those that the new machine does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hyper2kvmd.mac import normal_mac
from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.ovf.items import ETHERNET, Item
from hyper2kvmd.machines.ovf.places import slot_of
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.machine import SourceNic

OTHER, FLOPPY, CD, DVD, TPM, NVRAM = 1, 14, 15, 16, 34, 32768
KNOWN = frozenset({3, 4, 5, 6, 10, 15, 16, 17, 19, 20, 23, 24, 31, TPM, NVRAM})
"""Types of items that the machine has in another form, or that are read elsewhere."""
NEEDLESS = ("vmware.vmci", "vmware.usb", "virtualkeyboard", "virtualpointing")
"""The beginnings of subtypes of `other` devices that every new machine has, or that no guest needs."""
PASSED_THROUGH = ("passthrough", "vgpu", "sriov", "hostdev")
TPM_SUBTYPE = "vmware.vtpm"
NAMES = {FLOPPY: "floppy drive", 21: "serial port", 22: "parallel port", 35: "sound card"}
BARE_MAC = re.compile(r"[0-9A-Fa-f]{12}")


def nics_of(items: Sequence[Item], macs: Sequence[str]) -> tuple[SourceNic, ...]:
    """The network cards. `macs` are VirtualBox's own, for cards whose items have none."""
    cards = _in_order([item for item in items if item.kind == ETHERNET])
    more = macs if len(macs) == len(cards) else [""] * len(cards)
    return tuple(
        SourceNic(
            mac=_mac(card.one("Address")) or _mac(mac),
            slot=slot_of(card),
            network=shown_name(card.one("Connection")),
        )
        for card, mac in zip(cards, more, strict=True)
    )


def cdroms_of(items: Sequence[Item]) -> int:
    return sum(item.kind in (CD, DVD) for item in items)


def has_tpm(items: Sequence[Item]) -> bool:
    return any(item.kind == TPM or item.subtype.startswith(TPM_SUBTYPE) for item in items)


def has_nvram(items: Sequence[Item]) -> bool:
    """Whether VirtualBox put the variables of the firmware into the package."""
    return any(item.kind == NVRAM for item in items)


def shown_name(text: str) -> str | None:
    """A name as its platform shows it; None for an empty one or one that is no plain text."""
    return text if text and text.isprintable() else None


def concerns_of(items: Sequence[Item]) -> Iterator[Concern]:
    """Concerns about cards without a usable address, and about devices that the new machine does not have."""
    for item in items:
        if item.kind == ETHERNET:
            yield from _about_card(item)
        elif item.kind in (CD, DVD):
            if item.values("HostResource"):
                yield _lost(item, "is a CD or DVD drive with a medium: the new machine has an empty drive")
        elif item.kind is None:
            yield _lost(item, "has no ResourceType: it is ignored", warning=item.required)
        elif item.kind not in KNOWN and not item.subtype.startswith((TPM_SUBTYPE, *NEEDLESS)):
            yield _about_device(item)


def _about_card(item: Item) -> Iterator[Concern]:
    address = item.one("Address")
    if address and _mac(address) is None:
        yield Concern(
            code="mac-address-invalid",
            message=f"{item.descriptor}: {item.label} has the address {faults.shown(address)}, which is no MAC address"
            " of a card: the new card gets another one",
            hint="Check static addresses and DHCP reservations that depend on it",
        )
    if _is_passed_through(item):
        yield _passed_through(item)


def _about_device(item: Item) -> Concern:
    if _is_passed_through(item):
        return _passed_through(item)
    known = NAMES.get(item.kind or 0)
    what = f"a {known}" if known else f"a device of type {item.kind} {faults.shown(item.subtype)}"
    return _lost(item, f"is {what}: the new machine has none", warning=known is None and item.required)


def _passed_through(item: Item) -> Concern:
    return _lost(item, "is a device of the host, passed through to the machine: the new machine has none", warning=True)


def _lost(item: Item, fact: str, *, warning: bool = False) -> Concern:
    level = "warning" if warning else "information"
    hint = "Add the device to the new machine, if the guest needs it"
    return Concern(
        code="device-not-migrated", message=f"{item.descriptor}: {item.label} {fact}", hint=hint, level=level
    )


def _is_passed_through(item: Item) -> bool:
    packed = item.subtype.replace(".", "").replace("-", "")
    return any(word in packed for word in PASSED_THROUGH)


def _in_order(cards: list[Item]) -> list[Item]:
    """By their numbers, if each has its own."""
    numbers = [card.number("AddressOnParent") for card in cards]
    if None in numbers or len(set(numbers)) != len(numbers):
        return cards
    return sorted(cards, key=lambda card: card.number("AddressOnParent") or 0)


def _mac(text: str) -> str | None:
    if BARE_MAC.fullmatch(text.strip()):
        text = re.sub(r"(..)(?=.)", r"\1:", text.strip())
    return normal_mac(text)
