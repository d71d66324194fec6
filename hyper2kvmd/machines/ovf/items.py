"""The items of a system's virtual hardware: which of them count, and their fields.

Source: DMTF DSP0243 1.1 and 2.1, section 8 (VirtualHardwareSection, ovf:bound and ovf:configuration).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.ovf.elements import Element
from hyper2kvmd.machines.ovf.quantities import whole_number
from hyper2kvmd.machines.ovf.sections import sections

ITEMS = ("Item", "StorageItem", "EthernetPortItem")
ETHERNET = 10
LABELS = ("ElementName", "Caption", "Description", "InstanceID", "ResourceType")


@dataclass(frozen=True)
class Item:
    """One device or quantity."""

    descriptor: str
    """The descriptor's name, for messages."""
    tag: str
    fields: Mapping[str, tuple[str, ...]]
    """Values by the name of the field, without empty ones."""
    extensions: Mapping[str, str]
    """What VMware adds: elements of its own, and vmw:Config by its key in lower case."""
    required: bool

    def values(self, name: str) -> tuple[str, ...]:
        return self.fields.get(name, ())

    def one(self, name: str) -> str:
        """The only value; empty if there is none. Raises MigrationFailed (`ovf-value-unclear`) for several."""
        found = tuple(dict.fromkeys(self.values(name)))
        if len(found) > 1:
            raise faults.value_unclear(
                self.descriptor,
                f"{self.label} has several values of {name}: {faults.listed(found)}",
                "Keep one of them in the descriptor",
            )
        return found[0] if found else ""

    def number(self, name: str) -> int | None:
        return whole_number(self.one(name))

    @property
    def instance(self) -> str:
        return self.one("InstanceID")

    @property
    def kind(self) -> int | None:
        """The ResourceType of CIM; None if it is missing."""
        found = self.number("ResourceType")
        return ETHERNET if found is None and self.tag == "EthernetPortItem" else found

    @property
    def subtype(self) -> str:
        """In lower case."""
        return " ".join(self.values("ResourceSubType")).lower()

    @property
    def place(self) -> str:
        """The descriptor and what a person calls the item in it."""
        return f"{self.descriptor}: {self.label}"

    @property
    def label(self) -> str:
        """What a person calls it."""
        found = next((values[0] for values in map(self.values, LABELS) if values), "without a name")
        return f"the item {faults.shown(found)}"


def hardware_of(system: Element, name: str) -> Element:
    """The only virtual hardware of the system. Raises MigrationFailed (`ovf-system-unclear`)."""
    found = list(sections(system, "VirtualHardwareSection"))
    if len(found) != 1:
        fact = f"has {len(found) or 'no'} VirtualHardwareSection{'s' if len(found) > 1 else ''} for one machine"
        raise faults.system_unclear(name, fact, "Export the machine again, or keep one section in the descriptor")
    return found[0]


def all_items(hardware: Element, name: str) -> Iterator[Item]:
    """The items of every configuration."""
    return (_item(one, name) for one in hardware.all(*ITEMS))


def configurations_used(hardware: Element) -> tuple[str, ...]:
    """Every configuration that an item names."""
    return tuple(dict.fromkeys(one for item in hardware.all(*ITEMS) for one in _configurations(item)))


def items_of(hardware: Element, configuration: str | None, name: str) -> tuple[Item, ...]:
    """The items for the configuration. Those that only bound a quantity are left out.

    An item for the configuration replaces one of the same InstanceID that is for all of them.
    """
    normal = [one for one in hardware.all(*ITEMS) if (one.get("bound") or "normal").lower() == "normal"]
    items = [(_configurations(one), _item(one, name)) for one in normal]
    replaced = {item.instance for chosen_by, item in items if configuration in chosen_by}
    replaced.discard("")
    return tuple(
        item
        for chosen_by, item in items
        if (configuration in chosen_by if chosen_by else item.instance not in replaced)
    )


def _configurations(item: Element) -> list[str]:
    return (item.get("configuration") or "").split()


def _item(element: Element, name: str) -> Item:
    fields: dict[str, list[str]] = defaultdict(list)
    for child in element.children:
        if child.vocabulary not in ("vmw", "vbox") and child.text:
            fields[_modern(child.name)].append(child.text)
    required = (element.get("required") or "true").lower() not in ("false", "0")
    values = {key: tuple(found) for key, found in fields.items()}
    return Item(name, element.name, values, dict(_extensions(element)), required)


def _modern(field: str) -> str:
    """The name since OVF 1.0 of a field of version 0.9."""
    return {"InstanceId": "InstanceID", "BusNumber": "Address"}.get(field, field)


def _extensions(element: Element) -> Iterator[tuple[str, str]]:
    for child in element.foreign("vmw", "Config", "ExtraConfig"):
        key, value = child.get("key", "vmw"), child.get("value", "vmw")
        if key and value is not None:
            yield key.lower(), value
    for child in element.children:
        if child.vocabulary == "vmw" and child.text:
            yield child.name, child.text
