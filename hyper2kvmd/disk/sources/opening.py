"""The choice of a source's format and reader, made only here.

The file's content determines the format, and its name must not contradict it. A guest can write any bytes to its raw
disk, also the header of another format, and must not choose how that disk is read.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from hyper2kvmd.disk import faults
from hyper2kvmd.disk.file_names import descriptor_of
from hyper2kvmd.disk.files import SourceFile, open_file
from hyper2kvmd.disk.sources import other_files, vmdk
from hyper2kvmd.disk.sources.block_map import open_block_map, vdi, vhd, vhdx
from hyper2kvmd.disk.sources.foreign import open_foreign, qcow2
from hyper2kvmd.disk.sources.raw import RawSource
from hyper2kvmd.disk.sources.source import DiskSource
from hyper2kvmd.disk.sources.vmdk import descriptor, esx, links, sparse
from hyper2kvmd.errors import Failure, MigrationFailed, Unsafe
from hyper2kvmd.host import run
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import SourceFormat

MAGICS: tuple[tuple[int, bytes, SourceFormat], ...] = (
    (0, sparse.MAGIC, "vmdk"),
    *((0, magic, "vmdk") for magic in esx.MAGICS),
    (0, qcow2.MAGIC, "qcow2"),
    (0, vhdx.MAGIC, "vhdx"),
    (0, vhd.MAGIC, "vhd"),
    (vdi.MAGIC_AT, vdi.MAGIC, "vdi"),
)
"""(byte of the file, magic number, format)."""
HEAD_BYTES = 512
SUFFIXES: dict[str, SourceFormat] = {
    ".vmdk": "vmdk",
    ".qcow2": "qcow2",
    ".qcow": "qcow2",
    ".vdi": "vdi",
    ".vhd": "vhd",
    ".vpc": "vhd",
    ".avhd": "vhd",
    ".vhdx": "vhdx",
    ".avhdx": "vhdx",
    ".raw": "raw",
    ".img": "raw",
    ".dd": "raw",
    ".bin": "raw",
}
RAW_SUFFIXES = tuple(suffix for suffix, fmt in SUFFIXES.items() if fmt == "raw")
OTHER_KEYS = {".ova": "ova", ".ovf": "ovf", ".vmx": "vmx"}
"""Keys for descriptions of machines, by suffix."""
PIECE = re.compile(r"(.+)-f[0-9]{3}\.vmdk", re.IGNORECASE)
"""The name of one extent of a split flat VMDK: raw content, which the guest wrote."""


@contextlib.contextmanager
def open_source(file: SourceFile, folder: Path, mandate: Mandate) -> Iterator[DiskSource]:
    """The disk in an open file, vetted and ready to be read; QEMU's socket may be made in `folder`.

    Files that it names are opened by `mandate`. Raises MigrationFailed (`source-format-unclear`,
    `source-format-differs`, `source-extent`, and as `other_files` does), Unsafe (`confinement-missing`), and as
    `vmdk.open_vmdk`, `RawSource`, `open_foreign` and `open_block_map` do.
    """
    other_files.refuse_parts(file.path)
    fmt, concerns = _format_of(file, mandate)
    if fmt == "vmdk":
        with vmdk.open_vmdk(file, mandate) as disk:
            disk.concerns = concerns
            yield disk
    elif fmt == "raw":
        yield RawSource(file, concerns)
    elif fmt == "qcow2":
        if mandate.person is not None and not run.confinement_available():
            raise _unconfined(file.path)
        with open_foreign(file, folder) as served:
            served.concerns = concerns
            yield served
    else:
        mapped = open_block_map(file, fmt)
        mapped.concerns = concerns
        yield mapped


def _format_of(file: SourceFile, mandate: Mandate) -> tuple[SourceFormat, tuple[Concern, ...]]:
    """The format, and concerns about the choice of it."""
    descriptor_name = None if _can_be_descriptor(file) else descriptor_of(file.path.name)
    found, named = format_at_start(file), "raw" if descriptor_name else SUFFIXES.get(file.path.suffix.lower())
    if vhd.has_footer(file):
        found = _with_footer(file, found, named)
    piece = PIECE.fullmatch(file.path.name)
    if found is not None and named not in (None, found):
        raise _differs(file, found, named)
    if found is not None:
        if piece is not None:
            _refuse_described(file, f"{piece[1]}.vmdk", mandate)
        is_clear = named is not None and (piece is None or _can_be_descriptor(file))
        return found, () if is_clear else (_doubt(file, found),)
    concerns = other_files.refuse(file, named_raw=named == "raw")
    if descriptor_name:
        return "raw", (*concerns, _read_without_descriptor(file, descriptor_name, mandate))
    if piece is not None:
        raise faults.is_extent(file.path, f"{piece[1]}.vmdk")
    if named == "raw" or named == "vmdk":  # the VMDK reader reports its errors best
        return named, concerns
    raise _unclear(file, named)


def _read_without_descriptor(file: SourceFile, descriptor_name: str, mandate: Mandate) -> Concern:
    """A concern about a raw extent that is alone. Raises as `_refuse_described` does."""
    _refuse_described(file, descriptor_name, mandate)
    return Concern(
        code="extent-without-descriptor",
        message=f"{file.path} is an extent without its descriptor {descriptor_name}: it is read as a raw disk; changes"
        " in later snapshots are not in it",
        hint=f"Copy {descriptor_name} beside it and name that, if the machine has snapshots",
    )


def _refuse_described(file: SourceFile, descriptor_name: str, mandate: Mandate) -> None:
    """Raise MigrationFailed (`source-extent`) for an extent that the descriptor beside it names."""
    path = file.path.with_name(descriptor_name)
    try:
        beside = open_file(path, mandate.named_by(file.fd, file.path))
    except Failure:
        beside = None
    if beside is not None:
        try:
            described = links.read_descriptor(beside)
        finally:
            os.close(beside.fd)
        if described is not None and file.path.name in [extent.name for extent in described.extents]:
            raise faults.is_extent(file.path, descriptor_name)


def _doubt(file: SourceFile, found: SourceFormat) -> Concern:
    """A concern about content that could be a guest's, in a raw disk, because the name does not exclude it.

    Raises MigrationFailed (`source-format-unclear`) for a VMDK that names other files: it would give the guest of a raw
    disk those beside its own.
    """
    if found == "vmdk" and _names_files(file):
        raise MigrationFailed(
            "source-format-unclear",
            f"{file.path} has the content of a VMDK that names other files, but not the name of one",
            hint="Rename it only if you know what it is: to disk.vmdk for a VMDK, or to disk.raw for a raw disk."
            " A guest can write such content into its own raw disk",
        )
    return Concern(
        code="format-by-content",
        message=f"{file.path} is read as {found} because of its content, which its name does not confirm",
        hint="If it is a raw disk, its guest wrote that content: rename it to end in .raw",
    )


def _names_files(file: SourceFile) -> bool:
    """Whether a VMDK has extents or a parent in other files."""
    described = links.read_descriptor(file)
    return _is_descriptor(file) or (described is not None and described.has_parent)


def _is_descriptor(file: SourceFile) -> bool:
    return descriptor.is_descriptor(file.read(0, HEAD_BYTES))


def _can_be_descriptor(file: SourceFile) -> bool:
    """Whether it begins as a descriptor and is no larger than one: machines have names such as db-rdm, too."""
    return file.size <= descriptor.LIMIT and _is_descriptor(file)


def format_at_start(file: SourceFile) -> SourceFormat | None:
    """The format that the first bytes show."""
    if _is_descriptor(file):
        return "vmdk"
    head = file.read(0, HEAD_BYTES)
    for at, magic, fmt in MAGICS:
        if head[at:].startswith(magic):
            return fmt
    return None


def _with_footer(file: SourceFile, start: SourceFormat | None, named: SourceFormat | None) -> SourceFormat:
    """The format of a file that ends like a VHD: a fixed one, or one whose last bytes a guest wrote.

    In a fixed VHD the guest writes the start of the file, in a raw disk and most images also the end. So the name
    decides, and without one the disk is refused.
    """
    if start is not None and named not in (None, "vhd"):
        return start
    if named is None and start != "vhd":
        raise _unclear(file, named)
    return "vhd"


def _unconfined(path: Path) -> Unsafe:
    """After the check, its owner could write the name of another file into it, and QEMU would open that."""
    return Unsafe(
        "confinement-missing",
        f"{path}: QEMU cannot be confined while it reads a QCOW2, because this host's kernel has no Landlock",
        hint="Boot a kernel with Landlock, or convert the disk to raw and submit that",
    )


def _differs(file: SourceFile, found: SourceFormat, named: SourceFormat | None) -> MigrationFailed:
    return MigrationFailed(
        "source-format-differs",
        f"{file.path} has the suffix of {named} but the content of {found}",
        hint=f"Rename it to end in .{found} only if you know that it is {found}. A guest can write such a header into"
        " its own raw disk",
    )


def _unclear(file: SourceFile, named: SourceFormat | None) -> MigrationFailed:
    if named is not None:
        return MigrationFailed(
            "source-format-differs",
            f"{file.path} has the suffix of {named} but not its content",
            hint="Copy or export it again, or rename it to end in .raw if `fdisk -l` shows partitions of a raw disk",
        )
    other = OTHER_KEYS.get(file.path.suffix.lower())
    if other is not None:
        return MigrationFailed(
            "source-format-unclear",
            f"{file.path} has the suffix of {other}, and its content is of no known format",
            hint=f"Use {other}: instead of vmdk: to migrate that machine",
        )
    return MigrationFailed(
        "source-format-unclear",
        f"neither the content of {file.path} nor its name shows its format",
        hint="Rename it to end in .raw if `fdisk -l` shows partitions of a raw disk, or in .vhd if it is a fixed VHD;"
        " other formats are recognised by their content",
    )
