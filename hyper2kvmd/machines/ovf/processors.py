"""Processors and memory of a system, from the items of its virtual hardware."""

from __future__ import annotations

from collections.abc import Sequence

from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.ovf.items import Item
from hyper2kvmd.machines.ovf.quantities import bytes_of_unit, whole_number
from hyper2kvmd.model.machine import MAX_MEMORY, MAX_VCPUS

PROCESSOR, MEMORY = 3, 4
MIB = 1 << 20
SMALLEST_MEMORY = 4
"""MiB: of VMware and VirtualBox."""


def memory_of(items: Sequence[Item], name: str) -> int | None:
    """MiB. Raises MigrationFailed (`ovf-value-unclear`)."""
    item = _only(items, MEMORY, "memory", name)
    if item is None:
        return None
    stated, unit = item.number("VirtualQuantity"), item.one("AllocationUnits")
    sizes = _possible(stated, unit)
    if len(sizes) == 1:
        return sizes[0]
    measured = f"in the unit {faults.shown(unit)}" if unit else "without a unit"
    seen = f"{faults.shown(item.one('VirtualQuantity'))} {measured}"
    fact = f"{item.label} gives an unclear size of the memory: {seen} (possible: {SMALLEST_MEMORY} to {MAX_MEMORY} MiB)"
    raise faults.value_unclear(name, fact, "Set `memory` in the migration, in MiB")


def vcpus_of(items: Sequence[Item], name: str) -> int | None:
    """Raises MigrationFailed (`ovf-value-unclear`)."""
    item = _only(items, PROCESSOR, "processors", name)
    if item is None:
        return None
    stated = item.number("VirtualQuantity")
    if stated is not None and 1 <= stated <= MAX_VCPUS:
        return stated
    seen = faults.shown(item.one("VirtualQuantity"))
    fact = f"{item.label} gives an unclear number of processors: {seen} (possible: 1 to {MAX_VCPUS})"
    raise faults.value_unclear(name, fact, "Set `vcpus` in the migration")


def cores_per_socket_of(items: Sequence[Item], vcpus: int | None) -> int | None:
    """None also for a number that does not divide the processors."""
    found = [whole_number(item.extensions.get("CoresPerSocket")) for item in items if item.kind == PROCESSOR]
    cores = found[0] if len(found) == 1 else None
    return cores if cores and vcpus and vcpus % cores == 0 else None


def _only(items: Sequence[Item], kind: int, what: str, name: str) -> Item | None:
    found = [item for item in items if item.kind == kind]
    if len(found) > 1:
        seen = faults.listed(f"{item.label} with {faults.shown(item.one('VirtualQuantity'))}" for item in found)
        key = "memory" if kind == MEMORY else "vcpus"
        fact = f"several items give the {what}: {seen}"
        raise faults.value_unclear(name, fact, f"Set `{key}` in the migration")
    return found[0] if found else None


def _possible(stated: int | None, unit: str) -> tuple[int, ...]:
    """The sizes in MiB that it can mean. Without a unit it is bytes by the standard, but some exporters mean MiB."""
    factors = (bytes_of_unit(unit),) if unit else (1, MIB)
    sizes = (stated * factor for factor in factors if stated is not None and factor is not None)
    return tuple(-(-size // MIB) for size in sizes if SMALLEST_MEMORY * MIB <= size <= MAX_MEMORY * MIB)
