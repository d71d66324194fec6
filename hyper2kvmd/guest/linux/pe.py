"""PE files, the format of EFI programs: their architecture, their sections, and programs with changed sections.

Source: Microsoft's PE format specification.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hyper2kvmd.errors import MigrationFailed

SUFFIXES = {0x8664: "x64", 0x014C: "ia32", 0xAA64: "aa64", 0x01C2: "arm", 0x5064: "riscv64"}
"""Names of architectures in the UEFI specification (3.5.1.1), for the fallback loader."""
OFFSET_AT = 0x3C
FILE = struct.Struct("<4sHHIIIHH")
SECTION = struct.Struct("<8sIIIIIIHHI")
SECTIONS_LIMIT = 96
ALIGNMENTS_AT, IMAGE_SIZE_AT, HEADERS_SIZE_AT, CHECKSUM_AT = 32, 56, 60, 64
DIRECTORIES_AT = {0x10B: 96, 0x20B: 112}
"""By the magic number of the optional header: PE32 and PE32+."""
CERTIFICATES = 4
"""Index of the signatures among the data directories, 8 bytes each."""


@dataclass(frozen=True)
class Section:
    """`start` and `stored` are the offset and size of its content in the file, `size` excludes padding."""

    name: str
    address: int
    size: int
    start: int
    stored: int


@dataclass(frozen=True)
class Program:
    data: bytes
    optional: int
    """Offset of the optional header."""
    table: int
    """Offset of the section headers."""
    sections: tuple[Section, ...]

    def content(self, name: str) -> bytes | None:
        section = next((section for section in self.sections if section.name == name), None)
        return None if section is None else self.data[section.start : section.start + section.size]

    @property
    def is_signed(self) -> bool:
        return any(self.data[self._certificates : self._certificates + 8])

    @property
    def _certificates(self) -> int:
        (magic,) = struct.unpack_from("<H", self.data, self.optional)
        return self.optional + DIRECTORIES_AT[magic] + CERTIFICATES * 8


def suffix(head: bytes) -> str | None:
    """`x64`, `aa64` and so on, from the first KiB of a file; None if it is not a known EFI program."""
    at = _file_header(head)
    return None if at is None else SUFFIXES.get(FILE.unpack_from(head, at)[1])


def _file_header(data: bytes) -> int | None:
    if len(data) < OFFSET_AT + 4 or data[:2] != b"MZ":
        return None
    (at,) = struct.unpack_from("<I", data, OFFSET_AT)
    return at if at + FILE.size <= len(data) and data[at : at + 4] == b"PE\0\0" else None


def parse(data: bytes) -> Program | None:
    """None if it is not a program with sections, or is inconsistent."""
    at = _file_header(data)
    if at is None:
        return None
    _, _, count, _, _, _, optional_size, _ = FILE.unpack_from(data, at)
    optional = at + FILE.size
    table = optional + optional_size
    if count > SECTIONS_LIMIT or table + count * SECTION.size > len(data) or optional_size < DIRECTORIES_AT[0x10B]:
        return None
    (magic,) = struct.unpack_from("<H", data, optional)
    if magic not in DIRECTORIES_AT or optional_size < DIRECTORIES_AT[magic] + (CERTIFICATES + 1) * 8:
        return None
    found = []
    for index in range(count):
        name, size, address, stored, start, *_ = SECTION.unpack_from(data, table + index * SECTION.size)
        if start + stored > len(data):
            return None
        found.append(Section(name.rstrip(b"\0").decode(errors="replace"), address, min(size, stored), start, stored))
    return Program(data, optional, table, tuple(found))


def with_sections(program: Program, contents: Mapping[str, bytes]) -> bytes:
    """The program with other content in the sections that `contents` names, and without its signatures.

    A section that becomes too large for its address range moves behind all others. Raises MigrationFailed
    (`unified-kernel-unsupported`) when the file has an unsupported layout.
    """
    data = program.data
    section_step, file_step = struct.unpack_from("<II", data, program.optional + ALIGNMENTS_AT)
    image_size, headers_size = struct.unpack_from("<II", data, program.optional + IMAGE_SIZE_AT)
    names = [section.name for section in program.sections]
    if any(names.count(name) != 1 for name in contents):  # profiles, each with a command line of its own
        raise not_understood()
    if not _is_power(section_step) or not _is_power(file_step) or not program.table < headers_size <= len(data):
        raise not_understood()
    headers = bytearray(data[:headers_size])
    body = bytearray()
    placed: list[tuple[Section, bytes]] = []
    addresses = [section.address for section in program.sections]
    for index, section in enumerate(program.sections):
        header = data[program.table + index * SECTION.size :][: SECTION.size]
        new = contents.get(section.name)
        if new is not None:
            address = section.address
            above = [other for other in addresses if other > address]
            if above and address + len(new) > min(above):
                address = _up(image_size, section_step)
                addresses.append(address)
            image_size = max(image_size, _up(address + len(new), section_step))
            section = replace(section, address=address, size=len(new), stored=_up(len(new), file_step))
            header = _header(header, section, len(new))
        start = _up(headers_size, file_step) + len(body)
        old = data[section.start : section.start + section.stored]
        raw = (new if new is not None else old).ljust(section.stored, b"\0")
        body += raw.ljust(_up(len(raw), file_step), b"\0")
        placed.append((section, header[:20] + struct.pack("<I", start if raw else 0) + header[24:]))
    table = b"".join(header for _, header in sorted(placed, key=lambda place: place[0].address))
    headers[program.table : program.table + len(table)] = table
    struct.pack_into("<I", headers, program.optional + IMAGE_SIZE_AT, image_size)
    struct.pack_into("<I", headers, program.optional + CHECKSUM_AT, 0)
    struct.pack_into("<8x", headers, program._certificates)
    return bytes(headers).ljust(_up(headers_size, file_step), b"\0") + bytes(body)


def _header(header: bytes, section: Section, size: int) -> bytes:
    name, _, _, _, start, *rest = SECTION.unpack(header)
    return SECTION.pack(name, size, section.address, section.stored, start, *rest)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _is_power(value: int) -> bool:
    return value > 0 and not value & (value - 1)


def not_understood() -> MigrationFailed:
    return MigrationFailed(
        "unified-kernel-unsupported",
        "a unified kernel image of the guest has an unsupported layout",
        hint="Rebuild it in the guest, with virtio drivers in its initrd and a root= that is not /dev/sdX",
    )
