"""What VMware and VirtualBox add to an OVF descriptor: firmware, Secure Boot, TPM, identity.

Sources: vmw:Config and vmw:ExtraConfig in the virtual hardware, whose keys are those of the vSphere API and of .vmx
files; vbox:Machine in the system, which is VirtualBox's own description.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.ovf.elements import Element
from hyper2kvmd.model.machine import Firmware

TRUE, FALSE = ("true", "1"), ("false", "0")
SECURE_BOOT = ("bootoptions.efisecurebootenabled", "uefi.secureboot.enabled")
FIRMWARE: Mapping[str, Firmware] = {
    "bios": "bios",
    **dict.fromkeys(("efi", "efi32", "efi64", "efidual"), "uefi"),
}
"""The words of VMware, and those of VirtualBox."""
HEX_DIGITS = re.compile(r"[0-9a-f]{32}")
UUID_KEYS = ("uuid.bios", "uuid")


@dataclass(frozen=True)
class VirtualBoxCard:
    address: str = ""
    """Empty if it has none."""
    connected: bool = True
    """At the start: whether its cable is plugged in."""


@dataclass(frozen=True)
class AddedSettings:
    descriptor: str
    """The descriptor's name, for messages."""
    values: Mapping[str, tuple[str, ...]]
    """By key in lower case."""
    virtualbox: Element | None
    """vbox:Machine."""

    def one(self, *keys: str) -> str:
        """The value, in lower case; empty if there is none.

        Raises MigrationFailed (`ovf-value-unclear`) for several.
        """
        found = {value.lower(): key for key in keys for value in self.values.get(key, ())}
        if len(found) > 1:
            seen = faults.listed(f"{key} = {value}" for value, key in found.items())
            fact = f"the settings contradict each other: {seen}"
            raise faults.value_unclear(self.descriptor, fact, "Keep one of them in the descriptor")
        return next(iter(found), "")

    def flag(self, *keys: str) -> bool | None:
        """Raises MigrationFailed (`ovf-value-unclear`) for anything but a truth value."""
        value = self.one(*keys)
        if value in (*TRUE, *FALSE, ""):
            return value in TRUE if value else None
        fact = f"{keys[0]} is {faults.shown(value)}, neither true nor false"
        raise faults.value_unclear(self.descriptor, fact, "Correct it in the descriptor")

    @property
    def has_nvram(self) -> bool:
        """Whether the package has the variables of the firmware in a file."""
        return any("/" in value for value in self.values.get("nvram", ()))

    @property
    def uuid(self) -> str | None:
        """As the guest sees it: of VMware in bytes, `56 4d ...`; of VirtualBox in braces."""
        own = self.virtualbox
        hardware = next(within(own, "Hardware"), None) if own else None
        for text in (
            *(value for key in UUID_KEYS for value in self.values.get(key, ())),
            *(one.get("uuid") or "" for one in (hardware, own) if one is not None),
        ):
            digits = re.sub(r"[ {}-]", "", text.lower())
            if HEX_DIGITS.fullmatch(digits) and len(set(digits)) > 1:
                return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        return None

    @property
    def firmware(self) -> Firmware | None:
        """Raises MigrationFailed (`ovf-value-unclear`) for an unknown or contradictory one."""
        virtualbox = _attribute(self.virtualbox, "type", "Hardware", "Firmware").lower()
        stated = [value for value in (self.one("firmware"), virtualbox) if value]
        found = {FIRMWARE.get(value) for value in stated}
        if len(found) > 1 or None in found:
            fact = f"the firmware is {' and '.join(map(faults.shown, stated))}, neither BIOS nor UEFI"
            raise faults.value_unclear(self.descriptor, fact, "Set `uefi: true` or `uefi: false` in the migration")
        return found.pop() if found else None

    @property
    def secure_boot(self) -> bool | None:
        return self.flag(*SECURE_BOOT)

    @property
    def virtualbox_tpm(self) -> bool | None:
        """Whether VirtualBox gives the machine a TPM 2.0; None if it does not say."""
        kind = _attribute(self.virtualbox, "type", "Hardware", "TrustedPlatformModule").lower()
        return {"v2_0": True, "v1_2": False, "none": False}.get(kind)

    @property
    def virtualbox_cards(self) -> tuple[VirtualBoxCard, ...]:
        """The cards that are in use, by slot."""
        if self.virtualbox is None:
            return ()
        cards = [
            card
            for card in within(self.virtualbox, "Hardware", "Network", "Adapter")
            if (card.get("enabled") or "").lower() in TRUE
        ]
        return tuple(
            VirtualBoxCard(card.get("MACAddress") or "", (card.get("cable") or "").lower() not in FALSE)
            for card in sorted(cards, key=_slot)
        )


def settings_of(system: Element, hardware: Element, name: str) -> AddedSettings:
    values: dict[str, list[str]] = defaultdict(list)
    for owner in (system, hardware):
        for key, value in _pairs(owner):
            values[key].append(value)
    machine = next(system.foreign("vbox", "Machine"), None)
    return AddedSettings(name, {key: tuple(dict.fromkeys(found)) for key, found in values.items()}, machine)


def within(element: Element, *path: str) -> Iterator[Element]:
    """Every element at the path of names, whoever defines them: VirtualBox does not give its own a namespace."""
    if not path:
        yield element
    for child in element.children if path else ():
        if child.name == path[0]:
            yield from within(child, *path[1:])


def _pairs(owner: Element) -> Iterator[tuple[str, str]]:
    for one in owner.foreign("vmw", "Config", "ExtraConfig"):
        key, value = one.get("key", "vmw"), one.get("value", "vmw")
        if key and value is not None:
            yield key.lower(), value


def _attribute(element: Element | None, name: str, *path: str) -> str:
    found = (one.get(name) for one in within(element, *path)) if element is not None else iter(())
    return next((value for value in found if value), "")


def _slot(card: Element) -> int:
    slot = card.get("slot") or ""
    return int(slot) if re.fullmatch(r"[0-9]{1,3}", slot) else 0
