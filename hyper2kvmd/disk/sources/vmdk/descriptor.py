"""The text part of a VMDK: the type of the disk, its extents and its parent.

Source: VMware, Virtual Disk Format 5.0 (2011), section "The Descriptor File".
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.disk import faults, text_encoding
from hyper2kvmd.errors import MigrationFailed, Unsafe

SECTOR = 512
START = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:[ \t]*(?:#[^\r\n]*)?\r?\n)*?"
    rb"(?:[ \t]*#[ \t]*disk[ \t]*descriptor[ \t]*file|[ \t]*version[ \t]*=[ \t]*[123][ \t]*\r?\n)",
    re.IGNORECASE,
)
"""VMware's first line, as other tools spell it too; or, as in QEMU, comments and then the version."""
LIMIT = 1 << 20
"""Bytes. A descriptor is a page of text; ESX itself writes at most 20 sectors."""
NO_PARENT = "ffffffff"
EXTENT = re.compile(
    r"^\s*(?P<access>RW|RDONLY|NOACCESS)\s+(?P<sectors>[0-9]{1,18})\s+(?P<type>[A-Z0-9]+)"
    r'(?:\s+"(?P<name>[^"]*)"(?:\s+(?P<offset>[0-9]{1,18})(?:\s.*)?|(?P<more>\s+[^\s0-9+-].*))?)?\s*$',
    re.ASCII,
)
"""More fields may follow, such as partitionUUID and a device."""
EXTENT_LIKE = re.compile(r"^\s*(RW|RDONLY|NOACCESS)\b(?!\s*=)", re.ASCII | re.IGNORECASE)
LINE_END = re.compile(r"\r\n|\n|\r")
USED_KEYS = {"createtype", "cid", "parentcid", "parentfilenamehint", "ddb.uuid"}
LONGEST_LINE = 16384
"""Characters of an extent or a used setting: four times the longest path of Linux."""
ONE_FILE = {"monolithicSparse", "streamOptimized"}
"""Most often, the descriptor is inside the sparse file."""
SEVERAL_FILES = ONE_FILE | {
    "2GbMaxExtentFlat",
    "2GbMaxExtentSparse",
    "custom",
    "monolithicFlat",
    "seSparse",
    "twoGbMaxExtentFlat",
    "twoGbMaxExtentSparse",
    "vmfs",
    "vmfsEagerZeroedThick",
    "vmfsPreallocated",
    "vmfsSparse",
    "vmfsThin",
}
"""The types of a descriptor in a file of its own. Those without files (raw devices) are missing."""
FLAT_TYPES = {"FLAT", "VMFS"}
EXTENT_TYPES = FLAT_TYPES | {"SPARSE", "VMFSSPARSE", "SESPARSE", "ZERO"}


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
    serial: str | None = None
    """`ddb.uuid` as 32 hex digits."""

    @property
    def has_parent(self) -> bool:
        return self.parent_cid != NO_PARENT or self.parent_hint is not None


def is_descriptor(head: bytes) -> bool:
    """Whether a file with these first bytes is a descriptor."""
    return START.match(head) is not None


def parse_descriptor(data: bytes, path: Path) -> Descriptor:
    """Parse the text part of a VMDK. `path` is for errors only.

    Raises MigrationFailed (`source-not-vmdk`, `source-encoding`, `source-too-complex`).
    """
    if len(data) > LIMIT:
        raise faults.not_vmdk(path, f"its descriptor is larger than {LIMIT} bytes")
    values: dict[str, str] = {}
    extents: list[ExtentLine] = []
    data = data.rstrip(b"\0").removeprefix(codecs.BOM_UTF8)
    for line in LINE_END.split(text_encoding.decode(data)):
        if EXTENT_LIKE.match(line):
            _check_length(line, path)
            if len(extents) == faults.LARGEST_NUMBER_OF_EXTENTS:
                raise faults.too_many_extents(path)
            extents.append(_parse_extent(line, path, data))
            continue
        key, value = _assignment(line)
        if key in USED_KEYS and value is not None:
            _check_length(line, path)
            values.setdefault(key, value)
    if "createtype" not in values:
        raise faults.not_vmdk(path, "its descriptor has no createType")
    hint = values.get("parentfilenamehint") or None
    if hint is not None and not text_encoding.is_decoded(hint):
        raise _undecoded(hint, path, data)
    return Descriptor(
        create_type=values["createtype"],
        cid=values.get("cid", "").lower(),
        parent_cid=values.get("parentcid", NO_PARENT).lower(),
        parent_hint=hint,
        extents=tuple(extents),
        serial=_serial(values.get("ddb.uuid", "")),
    )


def _assignment(line: str) -> tuple[str, str | None]:
    """The key in lower case and the value; None for a line that is no assignment.

    Without a regular expression: with one, a line of blanks took time that grew with the cube of its length.
    """
    key, sign, value = line.partition("=")
    value = value.strip().removeprefix('"').removesuffix('"')
    return key.strip().lower(), None if not sign or '"' in value else value.strip()


def _check_length(line: str, path: Path) -> None:
    if len(line) > LONGEST_LINE:
        raise faults.not_vmdk(path, f"its descriptor has a line longer than {LONGEST_LINE} characters")


def _parse_extent(line: str, path: Path, data: bytes) -> ExtentLine:
    extent = EXTENT.match(line)
    if extent is None or (extent["more"] and extent["type"] == "FLAT"):
        raise faults.not_vmdk(path, f"its extent line {line[:80]!r} is invalid")
    name = extent["name"]
    if name is not None and not text_encoding.is_decoded(name):
        raise _undecoded(name, path, data)
    return ExtentLine(int(extent["sectors"]), extent["type"], name, extent["access"], int(extent["offset"] or 0))


def _undecoded(name: str, path: Path, data: bytes) -> MigrationFailed:
    stated = text_encoding.stated_encoding(data) or "UTF-8"
    return MigrationFailed(
        "source-encoding",
        f"{path}: the file name {name[:80]!r} in this descriptor is not valid {stated}",
        hint='Set encoding="..." in the descriptor to the code page of the host that wrote it, such as windows-1252',
    )


def _serial(written: str) -> str | None:
    """`60 00 C2 9a 32 7d ...-...`, in hexadecimal; None for anything else."""
    digits = re.sub(r"[\s-]", "", written).lower()
    return digits if re.fullmatch(r"[0-9a-f]{32}", digits) else None


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
        if extent.offset and extent.type not in FLAT_TYPES:
            raise faults.not_vmdk(
                path, f"its extent of type {extent.type} begins at an offset, {extent.offset} sectors"
            )
        if embedded and extent.type != "SPARSE":
            raise Unsafe(
                "source-unsafe",
                f"{path} is a sparse file whose descriptor points to {extent.type} extent {extent.name!r}",
                hint="Do not use this file: no VMware product writes such files",
            )
    check_size(sum(extent.sectors for extent in descriptor.extents), path)


def check_size(sectors: int, path: Path) -> None:
    """Refuse a disk without sectors, or one too large for vSphere."""
    if sectors == 0:
        raise faults.not_vmdk(path, "it has no sectors")
    faults.check_disk_size(path, sectors * SECTOR)


def _unsupported_type(descriptor: Descriptor, path: Path, *, embedded: bool) -> MigrationFailed:
    fact = f"has createType {descriptor.create_type[:40]!r}{' inside a sparse file' if embedded else ''}"
    return faults.unsupported(path, fact, f"Export it as one of {', '.join(sorted(SEVERAL_FILES))}")
