"""The structure of an OVF descriptor of any version: its sections, systems and collections.

Source: DMTF DSP0243 1.1 and 2.1. Version 0.9 of VMware calls every section `Section`, every system `Content`, and puts
the kind into xsi:type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.ovf.elements import Element

TYPED = ("Section", "Content")
INVALID = re.compile(r"[^A-Za-z0-9._-]+")
LONGEST_VM_NAME = 63


@dataclass(frozen=True)
class VirtualSystem:
    """One machine of an envelope."""

    element: Element
    owners: tuple[Element, ...]
    """The envelope and the collections around it, the outermost first."""
    number: int
    """In the envelope, counted from 1."""

    @property
    def identifier(self) -> str:
        """Its ovf:id; `system 2` without one."""
        return self.element.get("id") or f"system {self.number}"

    @property
    def names(self) -> tuple[str, ...]:
        """What it is called: its identifier first."""
        title = self.element.first("Name")
        return (self.identifier, *([title.text] if title is not None and title.text else []))


def require_envelope(root: Element, name: str) -> Element:
    """The root element, if it is the one of an OVF. Raises MigrationFailed (`ovf-unreadable`)."""
    if root.name != "Envelope" or root.vocabulary not in ("ovf", "none"):
        where = f" of the namespace {faults.shown(root.uri)}" if root.uri else ""
        raise faults.unreadable(name, f"its first element is {faults.shown(root.name)}{where}, not an OVF Envelope")
    return root


def sections(parent: Element, kind: str) -> Iterator[Element]:
    """The sections of a kind, such as `DiskSection`, directly in an envelope, system or collection."""
    return (one for one in parent.children if _kind(one) == kind)


def systems_in(envelope: Element, name: str) -> tuple[VirtualSystem, ...]:
    """Every system of the envelope, also those in nested collections, in their order.

    Raises MigrationFailed (`ovf-system-unclear`) if there is none.
    """
    found = [(owners, one) for owners, one in _walk((envelope,)) if _kind(one) == "VirtualSystem"]
    if not found:
        fact = "describes no machine: it has no VirtualSystem"
        raise faults.system_unclear(name, fact, "Export the machine itself, not a library or a pool")
    return tuple(VirtualSystem(one, owners, number) for number, (owners, one) in enumerate(found, start=1))


def choose_system(systems: Sequence[VirtualSystem], wanted: str | None, name: str) -> VirtualSystem:
    """The only system, or the one that `wanted` names. Raises MigrationFailed (`ovf-system-unclear`)."""
    if len(systems) == 1:
        return systems[0]
    exact = [system for system in systems if wanted in system.names]
    fitting = exact or [system for system in systems if wanted in tuple(map(vm_name_of, system.names))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        fact = f"describes {len(fitting)} machines that vm_name {faults.shown(str(wanted))} can mean"
        raise faults.system_unclear(name, fact, "Give each VirtualSystem its own ovf:id in the descriptor")
    raise faults.system_unclear(
        name,
        f"describes {len(systems)} machines, and vm_name is none of them:"
        f" {faults.listed(vm_name_of(system.identifier) or system.identifier for system in systems)}",
        "Set vm_name to one of these names, and migrate each machine with a file of its own",
    )


def vm_name_of(text: str) -> str:
    """The `vm_name` that chooses the system of this name: without the characters that a vm_name cannot have."""
    return INVALID.sub("-", text).strip("-._")[:LONGEST_VM_NAME]


def _walk(owners: tuple[Element, ...]) -> Iterator[tuple[tuple[Element, ...], Element]]:
    """What is directly in the last owner and in its collections, each with its owners; the parser limits the depth."""
    for one in owners[-1].children:
        yield owners, one
        if _kind(one) == "VirtualSystemCollection":
            yield from _walk((*owners, one))


def _kind(element: Element) -> str:
    if element.vocabulary not in ("ovf", "none"):
        return ""
    if element.name in TYPED:
        return (element.get("type", "xsi") or "").rpartition(":")[2].removesuffix("_Type")
    return element.name
