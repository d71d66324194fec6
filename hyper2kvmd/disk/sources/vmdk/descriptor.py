"""The text part of a VMDK: the type of the disk, its extents and its parent.

Source: VMware, Virtual Disk Format 5.0 (2011), section "The Descriptor File".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.disk import faults
from hyper2kvmd.errors import MigrationFailed, Unsafe

SECTOR = 512
START = b"# Disk DescriptorFile"
LIMIT = 1 << 20
"""Bytes. A descriptor is a page of text; ESX itself writes at most 20 sectors."""
NO_PARENT = "ffffffff"
EXTENT = re.compile(
    r'^(RW|RDONLY|NOACCESS)\s+([0-9]{1,18})\s+([A-Z0-9]+)(?:\s+"([^"]*)"(?:\s+([0-9]{1,18}))?)?\s*$', re.ASCII
)
EXTENT_LIKE = re.compile(r"^\s*(RW|RDONLY|NOACCESS)\b", re.ASCII)
ASSIGNMENT = re.compile(r'^\s*([A-Za-z][A-Za-z0-9_.]*)\s*=\s*"?([^"]*)"?\s*$')
SEVERAL_FILES = {"monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "vmfs", "vmfsSparse", "seSparse"}
ONE_FILE = {"monolithicSparse", "streamOptimized"}
EXTENT_TYPES = {"SPARSE", "FLAT", "VMFS", "VMFSSPARSE", "SESPARSE", "ZERO"}


@dataclass(frozen=True)
class ExtentLine:
    """One line of the descriptor: `sectors` of 512 bytes in `name` next to the descriptor (None for ZERO)."""

    sectors: int
    type: str
    name: str | None
    access: str = "RW"
    offset: int = 0
    """Sectors into the file `name`; flat extents only."""


@dataclass(frozen=True)
class Descriptor:
    create_type: str
    parent_cid: str
    parent_hint: str | None
    extents: tuple[ExtentLine, ...]
    cid: str = ""

    @property
    def has_parent(self) -> bool:
        return self.parent_cid != NO_PARENT or self.parent_hint is not None


def parse_descriptor(data: bytes, path: Path) -> Descriptor:
    """Parse the text part of a VMDK. `path` is for errors only.

    Raises MigrationFailed (`source-not-vmdk`, `source-too-complex`).
    """
    if len(data) > LIMIT:
        raise faults.not_vmdk(path, f"its descriptor is larger than {LIMIT} bytes")
    values: dict[str, str] = {}
    extents: list[ExtentLine] = []
    for line in data.rstrip(b"\0").decode("utf-8", errors="replace").splitlines():
        extent = EXTENT.match(line)
        if extent:
            if len(extents) == faults.LARGEST_NUMBER_OF_EXTENTS:
                raise faults.too_many_extents(path)
            extents.append(ExtentLine(int(extent[2]), extent[3], extent[4], extent[1], int(extent[5] or 0)))
            continue
        if EXTENT_LIKE.match(line):
            raise faults.not_vmdk(path, f"its extent line {line[:80]!r} is invalid")
        assignment = ASSIGNMENT.match(line)
        if assignment:
            values.setdefault(assignment[1].lower(), assignment[2].strip())
    if "createtype" not in values:
        raise faults.not_vmdk(path, "its descriptor has no createType")
    return Descriptor(
        create_type=values["createtype"],
        cid=values.get("cid", "").lower(),
        parent_cid=values.get("parentcid", NO_PARENT).lower(),
        parent_hint=values.get("parentfilenamehint"),
        extents=tuple(extents),
    )


def check_descriptor(descriptor: Descriptor, path: Path, *, embedded: bool) -> None:
    """Accept only supported descriptors; `embedded` is a descriptor inside a sparse file.

    Raises MigrationFailed (`source-unsupported`, `source-not-vmdk`) or Unsafe (`source-unsafe`).
    """
    if descriptor.create_type not in (ONE_FILE if embedded else SEVERAL_FILES):
        raise _unsupported_type(descriptor, path, embedded=embedded)
    if not descriptor.extents:
        raise faults.not_vmdk(path, "its descriptor names no extent")
    if embedded and len(descriptor.extents) > 1:
        raise faults.not_vmdk(path, "the descriptor inside it names several extents")
    for extent in descriptor.extents:
        if extent.type not in EXTENT_TYPES or (extent.name is None) != (extent.type == "ZERO"):
            raise faults.unsupported(
                path,
                f"has an extent of type {extent.type}",
                f"Export it with extents of type {', '.join(sorted(EXTENT_TYPES))}",
            )
        if extent.access == "NOACCESS":
            raise faults.unsupported(
                path, "has an extent marked NOACCESS", "Unlock the disk where it comes from, then export it again"
            )
        if embedded and extent.type != "SPARSE":
            raise Unsafe(
                "source-unsafe",
                f"{path} is a sparse file whose descriptor points to {extent.type} extent {extent.name!r}",
                hint="Do not use this file: no VMware product writes such files",
            )
    if not embedded:
        check_size(sum(extent.sectors for extent in descriptor.extents), path)


def check_size(sectors: int, path: Path) -> None:
    """Refuse a disk without sectors, or one too large for vSphere."""
    if sectors == 0:
        raise faults.not_vmdk(path, "it has no sectors")
    faults.check_disk_size(path, sectors * SECTOR)


def _unsupported_type(descriptor: Descriptor, path: Path, *, embedded: bool) -> MigrationFailed:
    fact = f"has createType {descriptor.create_type[:40]!r}{' inside a sparse file' if embedded else ''}"
    return faults.unsupported(path, fact, f"Export it as one of {', '.join(sorted(ONE_FILE | SEVERAL_FILES))}")
