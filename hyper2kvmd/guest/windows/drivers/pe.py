"""A driver's program file (PE): its architecture, version, signature and the digest that signatures cover.

Sources: Microsoft, "PE Format"; "Windows Authenticode Portable Executable Signature Format".
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

OFFSET_AT = 0x3C
FILE = struct.Struct("<4sHHIIIHH")
SECTION = struct.Struct("<8sIIIIIIHHI")
ARCHITECTURES = {0x8664: "amd64", 0x014C: "x86", 0xAA64: "arm64"}
MOST_SECTIONS = 96
CHECKSUM_AT = 64
DIRECTORIES_AT = {0x10B: 96, 0x20B: 112}
"""By the magic number of the optional header: PE32 and PE32+."""
RESOURCES, CERTIFICATES = 2, 4
"""Indexes of data directories."""
CERTIFICATE = struct.Struct("<IHH")
PKCS, MOST_SIGNATURES = 0x0002, 4
FIXED_VERSION = struct.Struct("<6I")
VERSION_MAGIC = b"\xbd\x04\xef\xfe"
ALIGNMENT = 8
"""Of the certificates; a file that ends elsewhere is padded before it is signed."""


class NotPe(ValueError):
    """The bytes are no program file, or contradict themselves."""


@dataclass(frozen=True)
class DriverProgram:
    data: bytes
    architecture: str
    """`amd64`, `x86`, `arm64`, or the number of another one."""
    checksum_at: int
    certificates_at: int
    """Where the directory entry of the signatures is."""
    signatures: tuple[bytes, ...]
    """PKCS#7, embedded."""
    version: tuple[int, int, int, int] | None
    """Of the file, from its resources."""

    def digest(self, algorithm: str) -> bytes:
        """The digest of the file without its checksum and signatures, as a signature has it."""
        start, size = self._certificates
        total = hashlib.new(algorithm, usedforsecurity=False)
        total.update(self.data[: self.checksum_at])
        total.update(self.data[self.checksum_at + 4 : self.certificates_at])
        total.update(self.data[self.certificates_at + 8 : start])
        total.update(self.data[start + size :])
        total.update(bytes(-(len(self.data) - size) % ALIGNMENT))
        return total.digest()

    @property
    def bytes_after_signatures(self) -> int:
        """Signing tools leave none there."""
        start, size = self._certificates
        return len(self.data) - start - size

    @property
    def _certificates(self) -> tuple[int, int]:
        """Their offset and size; an empty place at the end if there are none."""
        start, size = struct.unpack_from("<II", self.data, self.certificates_at)
        return (start, size) if start and size else (len(self.data), 0)


def parse(data: bytes) -> DriverProgram:
    """Raises NotPe."""
    try:
        return _parse(data)
    except struct.error as error:
        raise NotPe("the file ends within its headers") from error


def _parse(data: bytes) -> DriverProgram:
    if data[:2] != b"MZ":
        raise NotPe("the file is no program: it does not begin with MZ")
    (at,) = struct.unpack_from("<I", data, OFFSET_AT)
    magic, machine, count, _, _, _, optional_size, _ = FILE.unpack_from(data, at)
    if magic != b"PE\0\0":
        raise NotPe("the file is no program for Windows")
    optional = at + FILE.size
    (kind,) = struct.unpack_from("<H", data, optional)
    if kind not in DIRECTORIES_AT or optional_size < DIRECTORIES_AT[kind] + (CERTIFICATES + 1) * 8:
        raise NotPe("the file has headers of an unknown form")
    directories = optional + DIRECTORIES_AT[kind]
    certificates = directories + CERTIFICATES * 8
    struct.unpack_from("<II", data, certificates)
    address, size = struct.unpack_from("<II", data, directories + RESOURCES * 8)
    resources = _at_address(data, optional + optional_size, count, address, size)
    return DriverProgram(
        data=data,
        architecture=ARCHITECTURES.get(machine, f"{machine:#06x}"),
        checksum_at=optional + CHECKSUM_AT,
        certificates_at=certificates,
        signatures=tuple(_signatures(data, certificates)),
        version=_version(resources),
    )


def _at_address(data: bytes, table: int, count: int, address: int, size: int) -> bytes:
    """The bytes that are loaded to an address; none if no section has it."""
    if count > MOST_SECTIONS:
        raise NotPe(f"the file has {count} sections, more than {MOST_SECTIONS}")
    for index in range(count):
        _, _, first, stored, start, *_ = SECTION.unpack_from(data, table + index * SECTION.size)
        if first <= address < first + stored:
            offset = start + address - first
            return data[offset : min(offset + size, start + stored)]
    return b""


def _version(resources: bytes) -> tuple[int, int, int, int] | None:
    at = resources.find(VERSION_MAGIC)
    if at < 0 or at + FIXED_VERSION.size > len(resources):
        return None
    high, low = FIXED_VERSION.unpack_from(resources, at)[2:4]
    return high >> 16, high & 0xFFFF, low >> 16, low & 0xFFFF


def _signatures(data: bytes, certificates: int) -> Iterator[bytes]:
    at, size = struct.unpack_from("<II", data, certificates)
    end = at + size
    if not at or not size:
        return
    if end > len(data):
        raise NotPe("its signature reaches beyond the end of the file")
    for _ in range(MOST_SIGNATURES):
        if at + CERTIFICATE.size > end:
            return
        length, _, kind = CERTIFICATE.unpack_from(data, at)
        if not CERTIFICATE.size <= length <= end - at:
            raise NotPe("its signature has an unknown form")
        if kind == PKCS:
            yield data[at + CERTIFICATE.size : at + length]
        at += length + -length % ALIGNMENT
