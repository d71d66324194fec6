"""The disks of a system: from its items over the DiskSection to files.

Source: DMTF DSP0243 1.1, section 8.4 (HostResource) and 9.1 (DiskSection).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from hyper2kvmd import units
from hyper2kvmd.disk.faults import LARGEST_DISK
from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.ovf.described import DescribedDisk
from hyper2kvmd.machines.ovf.elements import Element
from hyper2kvmd.machines.ovf.items import Item
from hyper2kvmd.machines.ovf.places import Place
from hyper2kvmd.machines.ovf.properties import resolved
from hyper2kvmd.machines.ovf.quantities import bytes_of_unit, whole_number
from hyper2kvmd.machines.ovf.references import References
from hyper2kvmd.machines.ovf.sections import sections
from hyper2kvmd.model.asked import DISKS_MAX

DISK, STORAGE_EXTENT, LOGICAL_DISK = 17, 19, 31
"""Types of disks: VMware and VirtualBox use the first, Xen the second."""
RESOURCE = re.compile(r"(?:ovf:)?/{0,2}(disk|file)/(.+)")
"""`ovf:/disk/vmdisk1` by the standard; `/disk/`, `ovf://disk/`, `ovf:disk/` and `disk/` as found."""
SECTOR = 512
LONGEST_CHAIN = 32


def is_disk(item: Item) -> bool:
    return item.kind in (DISK, STORAGE_EXTENT, LOGICAL_DISK)


class DiskSection:
    """The DiskSection of an envelope."""

    def __init__(self, envelope: Element, properties: Mapping[str, str], name: str) -> None:
        self._name, self._properties = name, properties
        self._references = References(envelope, name)
        self._disks: dict[str, list[Element]] = {}
        for section in sections(envelope, "DiskSection"):
            for disk in section.all("Disk"):
                self._disks.setdefault(disk.get("diskId") or "", []).append(disk)

    def unused(self, items: Sequence[Item]) -> tuple[str, ...]:
        """The disks that none of the items has, neither itself nor as a parent."""
        used = {identifier for item in items for identifier in self._with_parents(item)}
        return tuple(identifier for identifier in self._disks if identifier not in used)

    def described(self, items: Sequence[Item], places: Sequence[Place]) -> tuple[DescribedDisk, ...]:
        """The disks of the items, in the order of their places.

        Raises MigrationFailed (`ovf-disk-unclear`, `ovf-disk-unsupported`).
        """
        if not items:
            raise faults.disk_unclear(self._name, "the machine has no disk", "Export the machine with its disks")
        if len(items) > DISKS_MAX:
            raise faults.too_many_disks(self._name, len(items), DISKS_MAX)
        owners: dict[tuple[str, str], Item] = {}
        found = []
        for item, place in zip(items, places, strict=True):
            kind, identifier = self._resource(item)
            other = owners.setdefault((kind, identifier), item)
            if other is not item:
                fact = f"{other.label} and {item.label} are the same disk, {faults.shown(identifier)}"
                raise faults.disk_unclear(self._name, fact)
            disk = self._disk(identifier) if kind == "disk" else self._from_file(identifier)
            found.append((place, disk.with_changes(address=place.address)))
        return tuple(disk for _, disk in sorted(found, key=lambda one: one[0].key))

    def _with_parents(self, item: Item) -> Iterator[str]:
        """The identifiers that the item reaches; none where it is unclear."""
        for text in item.values("HostResource"):
            match = RESOURCE.fullmatch(text)
            current: str | None = match[2] if match else text
            for _ in range(LONGEST_CHAIN):
                if current not in self._disks:
                    break
                yield current
                current = self._disks[current][0].get("parentRef")

    def _resource(self, item: Item) -> tuple[str, str]:
        """`disk` or `file`, and its identifier."""
        text = item.one("HostResource")
        if not text:
            raise faults.disk_unclear(
                self._name,
                f"{item.label} is a disk, but does not name one (HostResource is missing)",
                "Add `<rasd:HostResource>ovf:/disk/ID</rasd:HostResource>` to it, with one of the identifiers"
                f" {faults.listed(self._disks)}; or name the disks themselves in order: `vmdk: [first, second]`",
            )
        if text in self._disks:
            return "disk", text
        match = RESOURCE.fullmatch(text)
        if match is None:
            raise faults.disk_unclear(self._name, f"{item.label} is a disk at {faults.shown(text)}, not in the package")
        return match[1], match[2]

    def _disk(self, identifier: str, children: tuple[str, ...] = ()) -> DescribedDisk:
        element, label = self._element(identifier), f"the disk {faults.shown(identifier)}"
        if identifier in children or len(children) >= LONGEST_CHAIN:
            chain = faults.listed((*children, identifier))
            raise faults.disk_unclear(self._name, f"the parents of {label} never end: {chain}")
        reference, parent = element.get("fileRef"), element.get("parentRef")
        file = self._references.file(reference, label) if reference else None
        if file is None and parent:
            raise faults.disk_unclear(self._name, f"{label} has the parent {faults.shown(parent)}, but no file")
        return DescribedDisk(
            id=identifier,
            hrefs=file.hrefs if file else (),
            whole=file.whole if file else None,
            packing=file.packing if file else "none",
            file_size=file.file_size if file else None,
            part_size=file.part_size if file else None,
            capacity=self._capacity(element, label) if file is None else self._doubtful_capacity(element),
            parent=self._disk(parent, (*children, identifier)) if parent else None,
        )

    def _from_file(self, identifier: str) -> DescribedDisk:
        file = self._references.file(identifier, "a disk")
        return DescribedDisk(
            id=identifier,
            hrefs=file.hrefs,
            whole=file.whole,
            packing=file.packing,
            file_size=file.file_size,
            part_size=file.part_size,
        )

    def _element(self, identifier: str) -> Element:
        found = self._disks.get(identifier, [])
        if len(found) == 1:
            return found[0]
        known = faults.listed(one for one in self._disks if one)
        how = f"{len(found)} disks have" if found else "no disk has"
        fact = f"{how} the identifier {faults.shown(identifier)} (there are: {known})"
        raise faults.disk_unclear(self._name, fact)

    def _doubtful_capacity(self, element: Element) -> int | None:
        """Of a disk with a file: its header is believed more, so None if it is unclear."""
        stated = whole_number(resolved(element.get("capacity") or "", self._properties))
        unit = bytes_of_unit(element.get("capacityAllocationUnits") or "byte")
        found = stated * unit if stated and unit else None
        return found if found is not None and found <= LARGEST_DISK else None

    def _capacity(self, element: Element, label: str) -> int:
        """Of an empty disk, in whole sectors."""
        found = self._doubtful_capacity(element)
        if found is not None:
            return -(-found // SECTOR) * SECTOR
        unit = element.get("capacityAllocationUnits")
        seen = f"ovf:capacity {faults.shown(element.get('capacity') or '')}" + (
            f", ovf:capacityAllocationUnits {faults.shown(unit)}" if unit else ""
        )
        fact = f"{label} is empty, and its size is unclear: {seen}"
        hint = f"Set ovf:capacity to its size in bytes, at most {units.size(LARGEST_DISK)}, or remove its item"
        raise faults.disk_unclear(self._name, fact, hint)
