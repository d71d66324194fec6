"""What an OVF descriptor says about one machine, and the machine that follows once the files of its disks are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from hyper2kvmd.model.disks import DiskRef, EmptyDisk
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.machine import DiskAddress, Machine, MachineDisk

Packing = Literal["none", "gzip", "bzip2"]


class DescribedDisk(Frozen):
    """One disk of the machine. `hrefs.files_of` has the names of its files."""

    id: str
    """Its identifier in the descriptor, for messages."""
    hrefs: tuple[str, ...] = ()
    """References to its files as they are written. Several are parts: joined in this order, they are the file. Empty
    for a disk of zeros."""
    whole: str | None = None
    """For a disk in one part: the reference without a number, which some exporters mean."""
    packing: Packing = "none"
    """Of the joined file. A streamOptimized VMDK is not packed."""
    file_size: int | None = None
    """Bytes of the joined file, as it is packed; None if unknown."""
    part_size: int | None = None
    """Bytes of each part but the last; None for a file in one part."""
    capacity: int | None = None
    """Bytes; never None for a disk without files."""
    address: DiskAddress | None = None
    parent: DescribedDisk | None = None
    """The disk from which it has everything that it does not store itself."""


class Described(Frozen):
    """One machine of a descriptor."""

    machine: Machine
    """All facts but the disks."""
    disks: tuple[DescribedDisk, ...]
    """In the order of their places on the controllers."""


Locate: TypeAlias = Callable[[DescribedDisk], DiskRef]
"""Finds the files of a disk that has some, or raises the failure of the one that is missing."""


def assemble(described: Described, locate: Locate) -> Machine:
    """The machine with its disks. Raises as `locate` does."""
    disks = (_assembled(number, disk, locate) for number, disk in enumerate(described.disks, start=1))
    return described.machine.with_changes(disks=tuple(disks))


def _assembled(number: int, disk: DescribedDisk, locate: Locate) -> MachineDisk:
    at: DiskRef = locate(disk) if disk.hrefs else EmptyDisk(number=number, size=disk.capacity or 0)
    return MachineDisk(at=at, address=disk.address, capacity=disk.capacity)
