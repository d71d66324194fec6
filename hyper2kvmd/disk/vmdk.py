"""What a VMDK is made of, read from its own bytes before any tool opens it.

A VMDK is untrusted input that names other files. Only hosted formats whose extents are plain files beside the
descriptor are let through; the files found here are the only ones a converter may read.
Source: VMware, Virtual Disk Format 5.0 (2011), sections "The Descriptor File" and "Hosted Sparse Extents".
"""

from __future__ import annotations

import os
import re
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hyper2kvmd.errors import Kind, MigrationFailed, Unsafe
from hyper2kvmd.model import FileIdentity

SECTOR = 512
SPARSE_MAGIC = b"KDMV"
DESCRIPTOR_START = b"# Disk DescriptorFile"
DESCRIPTOR_LIMIT = 1 << 20
"""Bytes. A descriptor is a page of text; ESX itself writes at most 20 sectors."""
SPARSE_HEADER = struct.Struct("<4sIIQQQQIQQQBccccH")
NO_PARENT = "ffffffff"
EXTENT = re.compile(r'^(?:RW|RDONLY|NOACCESS)\s+(\d+)\s+([A-Z0-9]+)(?:\s+"([^"]*)"(?:\s+(\d+))?)?\s*$')
ASSIGNMENT = re.compile(r'^\s*([A-Za-z][A-Za-z0-9_.]*)\s*=\s*"?([^"]*)"?\s*$')
SEVERAL_FILES = {"monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "vmfs"}
ONE_FILE = {"monolithicSparse", "streamOptimized"}
EXTENT_TYPES = {"SPARSE", "FLAT", "VMFS", "ZERO"}


@dataclass(frozen=True)
class Extent:
    """One line of the descriptor: `sectors` of 512 bytes, held by `name` beside the descriptor (None for ZERO)."""

    sectors: int
    type: str
    name: str | None


@dataclass(frozen=True)
class Descriptor:
    create_type: str
    parent_cid: str
    parent_hint: str | None
    extents: tuple[Extent, ...]


@dataclass(frozen=True)
class VettedVmdk:
    """A VMDK that may be handed to a converter. `virtual_size` in bytes; `files` starts with the one named."""

    subformat: str
    virtual_size: int
    files: tuple[FileIdentity, ...]


def vet(path: Path) -> VettedVmdk:
    """Read the descriptor of `path` and identify every file that belongs to it.

    Raises MigrationFailed (`source-missing`, `source-unreadable`, `source-not-vmdk`, `source-unsupported`,
    `source-has-parent`) or Unsafe (`source-unsafe`).
    """
    own = identify(path)
    with _open(path) as file:
        start = file.read(SECTOR)
        if start.startswith(SPARSE_MAGIC):
            text, capacity = _embedded_descriptor(file, start, path)
        elif start.startswith(DESCRIPTOR_START):
            file.seek(0)
            text, capacity = file.read(DESCRIPTOR_LIMIT + 1), None
        else:
            raise MigrationFailed(
                "source-not-vmdk",
                f"{path} is not a VMDK: it begins with neither a sparse header nor a descriptor",
                hint="name the .vmdk descriptor or a sparse VMDK file, not a -flat.vmdk, an OVA or another format",
            )
    descriptor = parse_descriptor(text, path)
    _check_descriptor(descriptor, path, embedded=capacity is not None)
    if capacity is not None:
        return VettedVmdk(descriptor.create_type, capacity, (own,))
    names = dict.fromkeys(extent.name for extent in descriptor.extents if extent.name is not None)
    files = (own, *(identify(_beside(path, name)) for name in names))
    size = sum(extent.sectors for extent in descriptor.extents) * SECTOR
    return VettedVmdk(descriptor.create_type, size, files)


def identify(path: Path) -> FileIdentity:
    """Identity of a regular file that is no symlink; raises as `vet` does."""
    try:
        status = path.lstat()
    except FileNotFoundError as error:
        raise MigrationFailed(
            "source-missing",
            f"{path} does not exist",
            hint="correct the path, or wait for the export to end, then retry",
            kind=Kind.OPERATOR,
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
        raise Unsafe("source-unsafe", f"{path} is {kind}", hint="name the file itself")
    with _open(path):
        pass
    return FileIdentity(
        path=path,
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
    )


def require_unchanged(files: tuple[FileIdentity, ...]) -> None:
    """Raise MigrationFailed (`source-changed`) when a source file is not what it was when `vet` saw it."""
    for before in files:
        if identify(before.path) != before:
            raise MigrationFailed(
                "source-changed",
                f"{before.path} was changed or replaced during the migration",
                hint="stop whatever writes to it (is the VM still running?), then retry",
                kind=Kind.OPERATOR,
            )


def parse_descriptor(data: bytes, path: Path) -> Descriptor:
    """The text part of a VMDK. `path` names it in errors only."""
    if len(data) > DESCRIPTOR_LIMIT:
        raise _damaged(path, f"its descriptor is larger than {DESCRIPTOR_LIMIT} bytes")
    values: dict[str, str] = {}
    extents = []
    for line in data.rstrip(b"\0").decode("utf-8", errors="replace").splitlines():
        extent = EXTENT.match(line)
        if extent:
            extents.append(Extent(int(extent[1]), extent[2], extent[3]))
            continue
        assignment = ASSIGNMENT.match(line)
        if assignment:
            values.setdefault(assignment[1].lower(), assignment[2].strip())
    if "createtype" not in values:
        raise _damaged(path, "its descriptor has no createType")
    return Descriptor(
        create_type=values["createtype"],
        parent_cid=values.get("parentcid", NO_PARENT).lower(),
        parent_hint=values.get("parentfilenamehint"),
        extents=tuple(extents),
    )


def _embedded_descriptor(file: BinaryIO, start: bytes, path: Path) -> tuple[bytes, int]:
    """Descriptor text and capacity in bytes of a sparse extent that stands alone."""
    if len(start) < SECTOR:
        raise _damaged(path, f"it ends after {len(start)} bytes, inside its header")
    header = SPARSE_HEADER.unpack_from(start)
    version, capacity, offset, length = header[1], header[3], header[5], header[6]
    if version not in (1, 2, 3):
        raise _damaged(path, f"its sparse header has version {version}, known are 1 to 3")
    if offset == 0 or length == 0:
        raise MigrationFailed(
            "source-unsupported",
            f"{path} is one extent of a disk, not the disk",
            hint="name the small .vmdk descriptor file beside it",
        )
    if length * SECTOR > DESCRIPTOR_LIMIT:
        raise _damaged(path, f"its descriptor is larger than {DESCRIPTOR_LIMIT} bytes")
    file.seek(offset * SECTOR)
    text = file.read(length * SECTOR)
    if not text.startswith(DESCRIPTOR_START):
        raise _damaged(path, f"there is no descriptor at offset {offset * SECTOR}")
    return text.partition(b"\0")[0], capacity * SECTOR


def _check_descriptor(descriptor: Descriptor, path: Path, *, embedded: bool) -> None:
    known = ONE_FILE if embedded else SEVERAL_FILES
    if descriptor.parent_cid != NO_PARENT or descriptor.parent_hint is not None:
        raise MigrationFailed(
            "source-has-parent",
            f"{path} is a snapshot that needs its parent ({descriptor.parent_hint or 'unnamed'})",
            hint="consolidate the snapshots or clone the disk in vSphere, then export again",
        )
    if descriptor.create_type not in known:
        raise MigrationFailed(
            "source-unsupported",
            f"{path} has createType {descriptor.create_type[:40]!r}{' inside a sparse file' if embedded else ''}",
            hint=f"export it as one of {', '.join(sorted(ONE_FILE | SEVERAL_FILES))}",
        )
    if not descriptor.extents:
        raise _damaged(path, "its descriptor names no extent")
    for extent in descriptor.extents:
        if extent.type not in EXTENT_TYPES or (extent.name is None) != (extent.type == "ZERO"):
            raise MigrationFailed(
                "source-unsupported",
                f"{path} has an extent of type {extent.type}",
                hint=f"export it with extents of type {', '.join(sorted(EXTENT_TYPES))}",
            )
        if embedded and extent.type != "SPARSE":
            raise Unsafe(
                "source-unsafe",
                f"{path} is a sparse file whose descriptor points to {extent.type} extent {extent.name!r}",
                hint="do not use this file: no VMware product writes such a one",
            )
        if not embedded and extent.name is not None:
            _beside(path, extent.name)


def _beside(path: Path, name: str) -> Path:
    if not name or "/" in name or "\0" in name or name in (".", "..") or name == path.name:
        raise Unsafe(
            "source-unsafe",
            f"{path} names the extent {name!r}, which is not a file beside it",
            hint="put all extents in the descriptor's directory and name them without a path",
        )
    return path.with_name(name)


def _open(path: Path) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    return os.fdopen(descriptor, "rb")


def _unreadable(path: Path, error: OSError) -> MigrationFailed:
    return MigrationFailed(
        "source-unreadable",
        f"{path} cannot be read: {error.strerror}",
        hint="give the user that runs the migration read access to the disk and its directory",
        kind=Kind.OPERATOR,
    )


def _damaged(path: Path, fact: str) -> MigrationFailed:
    return MigrationFailed("source-not-vmdk", f"{path} is damaged or not a VMDK: {fact}", hint="export the disk again")
