"""Network cards and other devices of a system, and concerns about those that the new machine does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hyper2kvmd.mac import normal_mac
from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.ovf.items import ETHERNET, Item
from hyper2kvmd.machines.ovf.places import slot_of
from hyper2kvmd.machines.ovf.settings import FALSE, VirtualBoxCard
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.machine import SourceNic

OTHER, FLOPPY, CD, DVD, TPM, SOUND, NVRAM = 1, 14, 15, 16, 34, 35, 32768
PORTS = (21, 22)
KNOWN = frozenset({3, 4, 5, 6, ETHERNET, CD, DVD, 17, 19, 20, 23, 24, 31, TPM, NVRAM})
"""Types of items that are read elsewhere, or that every new machine has."""
TPM_SUBTYPE = "vmware.vtpm"
NEEDLESS = (TPM_SUBTYPE, "vmware.vmci", "vmware.usb", "vmware.keyboard", "vmware.pointingdevice")
"""The beginnings of subtypes of other devices that are read elsewhere, or that no guest needs."""
PASSED_THROUGH = ("pcipassthrough", "pci.passthrough", "sriov")
MAX_OF_A_KIND = 64
"""Network cards or optical drives of one machine. VMware has at most 10 cards, VirtualBox 36."""
LONGEST_NAME = 255
"""Characters."""
BARE_MAC = re.compile(r"[0-9A-Fa-f]{12}")


def nics_of(items: Sequence[Item], own: Sequence[VirtualBoxCard]) -> tuple[SourceNic, ...]:
    """The network cards. `own` are those of VirtualBox's description, for what the items do not have.

    Raises MigrationFailed (`ovf-too-complex`).
    """
    cards = _in_order(_few(items, (ETHERNET,), "network cards"))
    more = own if len(own) == len(cards) else [VirtualBoxCard()] * len(cards)
    return tuple(
        SourceNic(
            mac=_mac(card.one("Address")) or _mac(other.address),
            slot=slot_of(card),
            network=shown_name(card.one("Connection")),
            connected=card.one("AutomaticAllocation").lower() not in FALSE and other.connected,
        )
        for card, other in zip(cards, more, strict=True)
    )


def cdroms_of(items: Sequence[Item]) -> int:
    """How many optical drives there are. Raises MigrationFailed (`ovf-too-complex`)."""
    return len(_few(items, (CD, DVD), "optical drives"))


def has_tpm(items: Sequence[Item]) -> bool:
    return any(item.kind == TPM or item.subtype.startswith(TPM_SUBTYPE) for item in items)


def has_nvram(items: Sequence[Item]) -> bool:
    """Whether VirtualBox put the variables of the firmware into the package."""
    return any(item.kind == NVRAM for item in items)


def shown_name(text: str) -> str | None:
    """A name as its platform shows it; None for one that is empty, too long or no plain text."""
    return text if text and text.isprintable() and len(text) <= LONGEST_NAME else None


def concerns_of(items: Sequence[Item]) -> Iterator[Concern]:
    """Concerns about cards without a usable address, and about devices that the new machine does not have."""
    for item in items:
        if _is_needless(item):
            continue
        if "vgpu" in item.subtype or "passthrough-vmiop" in item.subtype:
            yield _virtual_gpu(item)
        elif any(word in item.subtype for word in PASSED_THROUGH):
            yield _passed_through(item)
        elif item.kind == ETHERNET:
            yield from _about_address(item)
        elif item.kind in (CD, DVD):
            yield from _about_medium(item)
        elif item.kind not in KNOWN:
            yield _about_device(item)


def _is_needless(item: Item) -> bool:
    """Whether each new machine has such a device, or no guest needs it."""
    return item.kind == OTHER and item.subtype.startswith(NEEDLESS)


def _about_address(item: Item) -> Iterator[Concern]:
    address = item.one("Address")
    if address and _mac(address) is None:
        yield Concern(
            code="mac-address-invalid",
            message=f"{item.place} has the address {faults.shown(address)}, which is not a card's MAC address",
            hint="Check static addresses and DHCP reservations: the new card gets another address",
        )


def _about_medium(item: Item) -> Iterator[Concern]:
    if item.values("HostResource"):
        yield Concern(
            code="medium-not-migrated",
            message=f"{item.place} is an optical drive with a medium, and the new machine has an empty drive",
            hint="Insert it with `virsh change-media`, if the guest needs it",
            level="information",
        )


FLOPPY_REMEDY = "Copy files that the guest needs from its floppy disk to its hard disk before the migration"


def _about_device(item: Item) -> Concern:
    if item.kind in PORTS:
        return Concern(
            code="port-not-migrated",
            message=f"{item.place} is a serial or parallel port, whose other end the new machine does not have",
            hint="Connect a serial port of the new machine with `virsh edit`, if a program in the guest needs it",
            level="information",
        )
    if item.kind == FLOPPY:
        message = f"{item.place} is a floppy drive, which the new machine does not have"
        return Concern(code="floppy-not-migrated", message=message, hint=FLOPPY_REMEDY, level="information")
    what = "a sound card" if item.kind == SOUND else _unknown(item)
    return Concern(
        code="device-not-migrated",
        message=f"{item.place} is {what}, which the new machine does not have",
        hint="Add a similar device to the new machine with `virsh edit`, if the guest needs it",
        level="warning" if item.required and item.kind != SOUND else "information",
    )


def _unknown(item: Item) -> str:
    kind = "without a ResourceType" if item.kind is None else f"of the type {item.kind}"
    return f"a device {kind}" + (f", {faults.shown(item.subtype)}" if item.subtype else "")


def _virtual_gpu(item: Item) -> Concern:
    return Concern(
        code="vgpu-not-migrated",
        message=f"{item.place} is a virtual GPU, which the new machine does not have",
        hint="Assign a mediated device or a GPU of the KVM host to the new machine",
    )


def _passed_through(item: Item) -> Concern:
    return Concern(
        code="pci-not-migrated",
        message=f"{item.place} is a PCI device of its host, which the new machine does not have",
        hint="Assign such a device of the KVM host to the new machine with `virsh edit`",
    )


def _few(items: Sequence[Item], kinds: Sequence[int], what: str) -> list[Item]:
    found = [item for item in items if item.kind in kinds]
    if len(found) > MAX_OF_A_KIND:
        raise faults.too_complex(found[0].descriptor, f"a machine with {len(found)} {what}, more than {MAX_OF_A_KIND}")
    return found


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
