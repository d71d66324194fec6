"""Files that are given instead of a disk: archives, compressed disks, parts of one, media and documents.

They are recognised by their content, whatever their names are. A raw disk may contain any bytes after its first
sectors, so a valid partition table counts more than the signature of a file.
"""

from __future__ import annotations

import re
import shlex
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hyper2kvmd.disk import faults
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.concerns import Concern

SECTOR = 512
BOOT_SIGNATURE_AT, BOOT_SIGNATURE = 510, b"\x55\xaa"
PARTITIONS_AT = 446
PARTITION = struct.Struct("<B3sB3sII")
"""State, first CHS, type, last CHS, first sector, number of sectors."""
STATES = (0x00, 0x80)
SYSTEM_AREA = 32768
"""Bytes before the descriptors of ISO 9660 (ECMA-119, 6.2.1) and UDF: zeros, unless the medium is a disk as well."""
MEDIUM = re.compile(rb"[\0-\xff](?:CD001|BEA01|NSR0[23])")
FIRST_VOLUME = 6
"""Bytes of the first volume descriptor that name its standard."""
TAR_MAGIC_AT, TAR_MAGIC = 257, b"ustar"
TAR_CHECKSUM = slice(148, 156)
TAR_NAME = slice(0, 100)
DMG_FOOTER, DMG_MAGIC = 512, b"koly"
TEXT = rb"(?:\xef\xbb\xbf)?\s*"
"""The start of a text file."""

PART_NAME = re.compile(
    r"(?P<whole>.+\.(?=[0-9]?[a-z])[a-z0-9]{2,6})\."
    r"(?:(?P<number>[0-9]{9}|[0-9]{3})|a[a-q]|(?P<part>part)-?(?:[0-9]{1,4}|[a-z]{2}))",
    re.IGNORECASE,
)
"""The parts of a split file: of an OVF (`ovf:chunkSize`, DSP0243, 7.1), of split(1), of archivers."""

COMPRESSED_NAME = re.compile(r"(?<=.)\.(?:gz|z|xz|lzma|lz|bz2|zst|lz4|lzo)$", re.IGNORECASE)


@dataclass(frozen=True)
class OtherFile:
    """What a file is. In the remedy, `{name}` is its name, `{unpacked}` that without the suffix of a compression."""

    what: str
    remedy: str
    is_a: Literal["package", "format", "document"] = "document"
    """A disk is in a package; another program reads a format."""


def _package(what: str, command: str) -> OtherFile:
    return OtherFile(what, f"Unpack it ({command}), and use the disk in it", "package")


def _compressed(by: str, filter_command: str) -> OtherFile:
    """The command works whatever the file is called: gunzip itself insists on .gz."""
    return _package(f"compressed by {by}", f"{filter_command} < {{name}} > {{unpacked}}")


def _format(what: str, driver: str) -> OtherFile:
    return OtherFile(what, f"Convert it: qemu-img convert -f {driver} -O qcow2 {{name}} disk.qcow2", "format")


def _restored(what: str, program: str) -> OtherFile:
    """A copy of a partition's file system."""
    return OtherFile(what, f"Restore it with {program} to a disk, and use that disk", "package")


AGAIN = "Copy or download the disk itself again"
OVA = OtherFile("an OVA", "Use ova: instead of vmdk: to migrate the machine in it", "package")
OVF = OtherFile("an OVF, the description of a machine", "Use ovf: instead of vmdk: to migrate that machine")
DOMAIN = OtherFile(
    "the XML of a libvirt domain", "Use libvirt_xml: instead of vmdk: to migrate the machine that it describes"
)
TAR = _package("a tar archive", "tar -xf {name}")
DMG = _format("a DMG", "dmg")
AS_DATA = (
    "If it is a data disk that holds this file system without partitions, convert it and use the result:"
    " qemu-img convert -f raw -O qcow2 {name} disk.qcow2"
)
MEDIA = OtherFile(
    "a CD or DVD image (ISO 9660 or UDF)",
    "Attach it to the new machine as a CD-ROM; to migrate a disk, use the disk's own file. " + AS_DATA,
)
SIGNATURES: tuple[tuple[bytes, OtherFile], ...] = (
    (rb"\x1f\x8b\x08", _compressed("gzip", "gunzip")),
    (rb"\x1f\x9d[\x80-\x9f]", _compressed("compress", "gunzip")),
    (rb"\xfd7zXZ\0", _compressed("xz", "unxz")),
    (
        rb"\x5d\0\0[\0-\xff]{2}(?:\xff{8}|[\0-\xff]{5}\0{3})",
        _compressed("lzma", "unlzma"),
    ),
    (rb"LZIP\x01", _compressed("lzip", "lzip -d")),
    (rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", _compressed("bzip2", "bunzip2")),
    (rb"\x28\xb5\x2f\xfd", _compressed("zstd", "unzstd")),
    (rb"[\x50-\x5f]\x2a\x4d\x18", _compressed("zstd or lz4", "unzstd")),
    (rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18", _compressed("lz4", "unlz4")),
    (rb"\x89LZO\0\r\n\x1a\n", _compressed("lzop", "lzop -d")),
    (rb"PK(?:\x03\x04|\x05\x06|\x07\x08)", _package("a ZIP archive", "unzip {name}")),
    (rb"7z\xbc\xaf\x27\x1c", _package("a 7-Zip archive", "7z x {name}")),
    (rb"Rar!\x1a\x07", _package("a RAR archive", "unrar x {name}")),
    (rb"07070[127][0-9A-Fa-f]{6}", _package("a cpio archive", "cpio -idF {name}")),
    (
        rb"\xc7\x71[\0-\xff]{18}[\x01-\xff][\0-\x03][\0-\xff]{4}[\x20-\x7e]",
        _package("a cpio archive", "cpio -idF {name}"),
    ),
    (rb"!<arch>\n", _package("an ar archive or a Debian package", "ar x {name}")),
    (rb"MSCF\0{4}", _package("a CAB archive", "cabextract {name}")),
    (rb"MSWIM\0{3}", _package("a WIM archive", "wimapply {name} FOLDER")),
    (rb"VMA\0\0\0\0\x01", _package("a backup of Proxmox VE", "vma extract {name} FOLDER")),
    (rb"(?:EVF\x09|LVF\x09)\x0d\x0a\xff\0|EVF2\x0d\x0a\x81\0", _package("an EnCase image", "ewfexport {name}")),
    (
        rb"hsqs|sqsh",
        OtherFile("a squashfs file system", "Use the disk that it was made from. " + AS_DATA),
    ),
    (rb"%PDF-", OtherFile("a PDF document", AGAIN)),
    (
        TEXT + rb"(?:<\?xml\b[^>]*>\s*)?(?:<!--[\0-\xff]{0,400}?-->\s*)?<(?:\w+:)?Envelope\b",
        OVF,
    ),
    (
        TEXT + rb"(?:<\?xml\b[^>]*>\s*)?(?:<!--[\0-\xff]{0,400}?-->\s*)?<domain\b",
        DOMAIN,
    ),
    (rb"(?i:" + TEXT + rb"(?:<!--|<!doctype\s+html|<html|<head|<body))", OtherFile("a web page (HTML)", AGAIN)),
    (
        TEXT + rb"<\?xml\b",
        OtherFile("an XML document", "Use the disk itself, not the description of it or of its machine"),
    ),
    (rb"\xff\xfe<\0|\xfe\xff\0<", OtherFile("an XML document or a web page", AGAIN)),
    (TEXT + rb"[{\[]\s*[{\"][\t\n\r\x20-\x7e]{8}", OtherFile("a JSON document", AGAIN)),
    (
        rb"(?i:SHA(?:1|256|384|512)|MD5) ?\([^)\n]{1,255}\) ?=",
        OtherFile("a manifest (checksums of other files)", "Use the .vmdk that it lists, in the same directory"),
    ),
    (
        TEXT + rb"(?:#[^\n]*\n)?(?:\.encoding|config\.version|virtualHW\.version)[ \t]*=",
        OtherFile("a .vmx file, the settings of a machine", "Use vmx: instead of vmdk: to migrate that machine"),
    ),
    (
        rb"MRVN",
        OtherFile("an .nvram file, the settings of a machine's firmware", "Use the .vmdk in the same directory"),
    ),
    (rb"\x7fELF", OtherFile("a program (ELF)", AGAIN)),
    (rb"partclone-image|\0ntfsclone-image", _restored("a Clonezilla image (partclone or ntfsclone)", "Clonezilla")),
    (rb"PaRtImAgE-VoLuMe", _restored("a Partimage image", "partimage")),
    (rb"FsArCh_", _restored("an FSArchiver archive", "fsarchiver")),
    (rb"\x3a\xff\x26\xed\x01\0", _package("an Android sparse image", "simg2img {name} {unpacked}")),
    (rb"Bochs Virtual HD Image", _format("a Bochs disk", "bochs")),
    (rb"#!/bin/sh\n#V[0-9.]+ Format\nmodprobe cloop", _format("a cloop image", "cloop")),
    (rb"QED\0", _format("a QED image", "qed")),
    (rb"WithoutFreeSpace|WithouFreSpacExt", _format("a Parallels disk", "parallels")),
)
"""(pattern of the first bytes, what begins so)."""
PATTERNS = tuple((re.compile(pattern), other) for pattern, other in SIGNATURES)


def refuse_parts(path: Path) -> None:
    """Raise MigrationFailed (`source-packed`) for a name that only parts of a split file have."""
    part = PART_NAME.fullmatch(path.name)
    if part is not None:
        whole = shlex.quote(part["whole"])
        endings = "[0-9]*" if part["number"] else "part*" if part["part"] else "??"
        raise MigrationFailed(
            "source-packed",
            f"{path} is one part of a split file, as its name shows",
            hint=f"Join the parts in order (cat {whole}.{endings} > {whole}), and use the result",
        )


def refuse(file: SourceFile, *, named_raw: bool) -> tuple[Concern, ...]:
    """Refuse a file whose content cannot be a raw disk's; concerns about one that can.

    Raises MigrationFailed (`source-packed`, `source-not-disk`, `source-unsupported`).
    """
    head = file.read(0, SECTOR)
    other = by_its_start(head) or _by_its_end(file) or _medium(file)
    if other is None:
        return ()
    if named_raw and (_has_partitions(head, file.size) or (other is MEDIA and any(file.read(0, SYSTEM_AREA)))):
        fact = f"{file.path} could also be {other.what}: it is read as a raw disk, because of its first sectors"
        hint = "Check that the file is a disk of this machine"
        return (Concern(code="format-by-content", message=fact, hint=hint),)
    raise _not_raw(file.path, other)


def by_its_start(head: bytes) -> OtherFile | None:
    """What a file is by its first sector."""
    if _is_tar(head):
        return OVA if head[TAR_NAME].partition(b"\0")[0].lower().endswith(b".ovf") else TAR
    return next((other for pattern, other in PATTERNS if pattern.match(head)), None)


def _by_its_end(file: SourceFile) -> OtherFile | None:
    return DMG if file.read(max(0, file.size - DMG_FOOTER), DMG_FOOTER).startswith(DMG_MAGIC) else None


def _medium(file: SourceFile) -> OtherFile | None:
    return MEDIA if MEDIUM.match(file.read(SYSTEM_AREA, FIRST_VOLUME)) else None


def _is_tar(head: bytes) -> bool:
    """POSIX and GNU have a magic number; older ones only the sum of the header's bytes (the field itself as blanks)."""
    if head[TAR_MAGIC_AT:].startswith(TAR_MAGIC):
        return True
    stated = re.fullmatch(rb" *([0-7]{1,7})[ \0]*", head[TAR_CHECKSUM])
    rest = sum(head) - sum(head[TAR_CHECKSUM])
    return stated is not None and head[0] != 0 and int(stated[1], 8) == rest + 8 * ord(" ")


def _has_partitions(head: bytes, size: int) -> bool:
    """Whether the first sector is an MBR with partitions, or protects a GPT."""
    if head[BOOT_SIGNATURE_AT:] != BOOT_SIGNATURE:
        return False
    entries = list(PARTITION.iter_unpack(head[PARTITIONS_AT:BOOT_SIGNATURE_AT]))
    used = [(first, length) for _, _, kind, _, first, length in entries if kind]
    inside = all(length and first * SECTOR < size for first, length in used)
    return bool(used) and inside and all(entry[0] in STATES for entry in entries)


def _not_raw(path: Path, other: OtherFile) -> MigrationFailed:
    fact = f"{path} is {other.what}, not a disk"
    unpacked = COMPRESSED_NAME.sub("", path.name)
    if unpacked == path.name:
        unpacked = f"unpacked-{path.name}"
    if other.is_a == "package" and ".ova" in [suffix.lower() for suffix in path.suffixes]:
        other = replace(other, remedy=OVA.remedy)
    hint = other.remedy.format(name=shlex.quote(path.name), unpacked=shlex.quote(unpacked))
    match other.is_a:
        case "package":
            return MigrationFailed("source-packed", fact, hint=hint)
        case "format":
            return faults.unsupported(path, f"is {other.what}, which is not supported", hint)
        case "document":
            return MigrationFailed("source-not-disk", fact, hint=hint)
