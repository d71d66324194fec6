"""The network cards of the migrated machine: their MAC addresses, their names, their order.

A MAC address is the source's own if its description contains it, else the card's one in the guest's configuration, else
one derived from the VM's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from hyper2kvmd.guest.linux.network.selector import NIC_NAME, Selector
from hyper2kvmd.guest.linux.network.survey import Survey
from hyper2kvmd.guest.nics import MAX_CARDS, as_nic
from hyper2kvmd.model.guest import Nic
from hyper2kvmd.model.machine import SourceNic

SLOTS = {"0000:03:00.0": 160, "0000:0b:00.0": 192, "0000:13:00.0": 224, "0000:1b:00.0": 256}
"""VMware's PCI slot numbers by the places that guests see, from kernel logs of VMware guests."""
PREDICTED, ENUMERATED = "enp1s0", "eth0"
"""Names of the first card on KVM if nothing names it, with and without predictable names."""
VMWARE_NAMES = ("ens192", "ens160", "ens33", "eth0", "eno1")
"""The most frequent names in VMware guests, for a configuration that has only a name pattern."""


@dataclass(frozen=True)
class Cards:
    nics: tuple[Nic, ...]
    warnings: tuple[str, ...] = ()
    _by_name: Mapping[str, Nic] = field(default_factory=dict)
    _by_mac: Mapping[str, Nic] = field(default_factory=dict)
    _by_place: Mapping[str, Nic] = field(default_factory=dict)

    def choose(self, selector: Selector) -> Nic | None:
        """The only card that a selector of this guest matches; None if it matches none, or several."""
        names, macs = [name for name in selector.literal_names if name in self._by_name], selector.macs
        if len(names) > 1 or len(macs) > 1:
            return None
        by_name = self._by_name.get(names[0]) if names else None
        by_mac = self._by_mac.get(macs[0]) if macs else None
        if not selector.claims and by_mac is not None and by_mac.mac == macs[0]:
            return by_mac  # a card has this address, whatever name a stale rule gives it
        return by_name or by_mac or self._by_place.get(selector.place)


@dataclass(frozen=True, eq=False)
class _Wanted:
    """A card that the configuration asks for."""

    name: str | None = None
    mac: str | None = None
    place: str = ""


@dataclass(frozen=True, eq=False)
class _Card:
    """A card of the new machine, with its configuration and its card on the source."""

    want: _Wanted
    source: SourceNic
    name: str | None

    @property
    def mac(self) -> str | None:
        return self.source.mac or self.want.mac


def decide_cards(found: Survey, source: tuple[SourceNic, ...], vm_name: str) -> Cards:
    """There is always at least one card: the guest may configure one later."""
    named, names = _knowledge(found)
    warnings: list[str] = []
    wanted = _wanted(found, named, names, warnings)
    if source:
        cards = _by_source(wanted, source, warnings)
    else:
        cards = [
            _Card(want, SourceNic(mac=None, slot=SLOTS.get(want.place)), want.name) for want in wanted or [_Wanted()]
        ]
    if len(cards) > MAX_CARDS:
        warnings.append(f"the guest configures {len(cards)} network cards: it gets the first {MAX_CARDS}")
    cards = _in_order(_named(found, names, cards[:MAX_CARDS]))
    pairs = [
        (card.want, as_nic(card.source, number, vm_name, name=card.name, configured=card.want.mac))
        for number, card in enumerate(cards)
    ]
    return Cards(
        nics=tuple(nic for _, nic in pairs),
        warnings=tuple(warnings),
        _by_name={nic.name: nic for _, nic in pairs if nic.name},
        _by_mac={want.mac: nic for want, nic in pairs if want.mac} | {nic.mac: nic for _, nic in pairs},
        _by_place={want.place: nic for want, nic in pairs if want.place},
    )


def _knowledge(found: Survey) -> tuple[dict[str, str], dict[str, str]]:
    """MAC address by name and name by MAC address; a configuration overrides a rule."""
    named: dict[str, str] = {}
    for selector in sorted(found.selectors, key=lambda selector: selector.claims):
        if len(selector.literal_names) == len(selector.macs) == 1:
            named[selector.literal_names[0]] = selector.macs[0]
    return named, {mac: name for name, mac in named.items()}


def _wanted(found: Survey, named: Mapping[str, str], names: Mapping[str, str], warnings: list[str]) -> list[_Wanted]:
    """The cards that are configured. A name counts if it looks like a card's, or has a MAC address or a place."""
    known = {name for selector in found.selectors if selector.macs or selector.place for name in selector.names}
    places = {name: selector.place for selector in found.selectors if selector.place for name in selector.names}
    wanted: dict[object, _Wanted] = {}
    macs: dict[str, str | None] = {}

    def want(key: object, name: str | None, mac: str | None, place: str = "") -> None:
        if key in wanted:
            return
        if mac is None or mac not in macs:
            wanted[key] = _Wanted(name, mac, place)
        elif name and macs[mac] != name:
            warnings.append(f"{macs[mac]} and {name} are configured for one card, {mac}: it is called {macs[mac]}")
        if mac is not None:
            macs.setdefault(mac, name)

    nameless = []
    for selector in found.selectors:
        if not selector.claims:
            continue
        cards = [name for name in selector.literal_names if name in known or NIC_NAME.fullmatch(name)]
        for name in cards:
            want(name, name, named.get(name), places.get(name, ""))
        if not cards:
            nameless.append(selector)
    for selector in nameless:
        for mac in selector.macs:
            want(mac, names.get(mac), mac)
        if selector.place and not selector.macs and selector.place not in places.values():
            want(selector.place, None, None, selector.place)
    return list(wanted.values())


def _by_source(wanted: list[_Wanted], source: tuple[SourceNic, ...], warnings: list[str]) -> list[_Card]:
    """The source's cards, each with its configuration: matched by MAC, by slot, then in order.

    In order, configurations without a MAC address come first: a MAC address that the source lacks is stale. One with
    only a place is never guessed: its address could come up on another network.
    """
    left = sorted(wanted, key=lambda want: (want.mac is not None, _natural(want.name)))
    found: dict[int, _Wanted] = {}

    def take(number: int, match: _Wanted | None) -> None:
        if match is not None:
            left.remove(match)
            found[number] = match

    for number, card in enumerate(source):
        take(number, next((want for want in left if want.mac and want.mac == card.mac), None))
    for number, card in enumerate(source):
        if number not in found and card.slot is not None:
            take(number, next((want for want in left if _is_in(want, card.slot)), None))
    free = sorted((number for number in range(len(source)) if number not in found), key=lambda n: _bus(source[n]))
    if guessed := [want.name or str(want.mac) for want in left if want.name or want.mac][: len(free)]:
        if len(free) > 1:
            warnings.append(f"it is unclear which card is {', '.join(guessed)}: assigned in bus order. Check it.")
        for number in free:
            take(number, next((want for want in left if want.name or want.mac), None))
    if stale := [want.name or want.mac or want.place for want in left]:
        have = f"{len(source)} network card{'s' if len(source) > 1 else ''}"
        warnings.append(f"the source has {have}, none matches {', '.join(stale)}: that configuration is unchanged")
    wants = [found.get(number, _Wanted()) for number in range(len(source))]
    return [_Card(want, card, want.name) for want, card in zip(wants, source, strict=True)]


def _is_in(want: _Wanted, slot: int) -> bool:
    """Whether a wanted card is in this slot, by its place or else by its name."""
    return SLOTS[want.place] == slot if want.place in SLOTS else want.name == slot_name(slot)


def slot_name(slot: int) -> str:
    """The predictable name of the card in a slot; further functions of a port are numbered on from it."""
    return f"ens{(slot & 1023) + (slot >> 10)}"


def _bus(card: SourceNic) -> tuple[bool, int, int]:
    """Cards with a slot in the order in which the kernel finds them, then the others in .vmx order."""
    return card.slot is None, (card.slot or 0) & 1023, (card.slot or 0) >> 10


def _named(found: Survey, names: Mapping[str, str], cards: list[_Card]) -> list[_Card]:
    """A card without a name gets the one that a rule gave it, or that of its slot, or one that matches a pattern in
    the configuration."""
    taken = {card.name for card in cards if card.name}
    natural = PREDICTED if found.predictable else ENUMERATED
    named = []
    for card in cards:
        address, slot, name = card.mac, card.source.slot, card.name
        if name is None:
            candidates = [
                names.get(address) if address else None,
                slot_name(slot) if slot and found.predictable else None,
            ]
            candidates += [_for_pattern(found, {*taken, natural}, slot)]
            name = next((candidate for candidate in candidates if candidate and candidate not in taken), None)
            taken |= {name} if name else set()
        named.append(replace(card, name=name))
    return named


def _in_order(cards: list[_Card]) -> list[_Card]:
    """Cards in the order of their names, but ethN at the position where the kernel itself names it ethN: udev does
    not swap two names."""
    left = sorted(cards, key=lambda card: _natural(card.name))
    fixed: dict[int, _Card] = {}
    for card in cards:
        match = re.fullmatch(r"eth(\d{1,2})", card.name or "")
        if match and int(match[1]) < len(cards) and int(match[1]) not in fixed:
            fixed[int(match[1])] = card
            left.remove(card)
    return [fixed.get(place) or left.pop(0) for place in range(len(cards))]


def _for_pattern(found: Survey, existing: set[str], slot: int | None) -> str | None:
    """A name for a configuration whose pattern would no longer match any card."""
    likely = [slot_name(slot), *VMWARE_NAMES] if slot else list(VMWARE_NAMES)
    for selector in found.selectors:
        if not selector.claims or selector.macs or selector.place or selector.literal_names:
            continue
        patterns = selector.patterns
        if not any(fnmatchcase(name, pattern) for name in existing for pattern in patterns):
            matching = (name for name in likely for pattern in patterns if fnmatchcase(name, pattern))
            if (name := next(matching, None)) is not None:
                return name
    return None


def _natural(name: str | None) -> tuple[bool, list[tuple[int, str]]]:
    parts = re.findall(r"\d{1,18}|\D+", name or "")
    return name is None, [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
