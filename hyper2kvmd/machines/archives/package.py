"""The files of an exported machine: in an archive of any kind, or in a directory. The content decides which.

Files that a plain tar or a ZIP stores as they are stay where they are. Compressed archives are unpacked as a whole,
because nothing in them can be found without unpacking what precedes it.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hyper2kvmd.disk import faults as damage
from hyper2kvmd.disk.file_names import last_part
from hyper2kvmd.disk.files import SourceFile, in_window, open_file
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import Failure, MigrationFailed
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.machines.archives import tar, zip  # noqa: A004 - the format
from hyper2kvmd.machines.archives.names import MAX_FILES, is_left_out
from hyper2kvmd.machines.archives.streams import Compression, Plain, Unpacked
from hyper2kvmd.machines.archives.unpacking import Unpacking
from hyper2kvmd.machines.other_key import recognise, tar_inside
from hyper2kvmd.machines.ovf.faults import listed, shown
from hyper2kvmd.model.disks import ArchiveMember, FileRef, LocalFile, MemberWindow, NamedBy


class Package(Protocol):
    """Files by their exact names. In a subdirectory of an archive, the name contains it: `web01/web01.ovf`."""

    @property
    def path(self) -> Path: ...

    @property
    def names(self) -> tuple[str, ...]:
        """As far as they are known: a directory may not be readable for the submitter."""
        ...

    def has(self, name: str) -> bool:
        """Raises as `open_file` does, but for a file that is missing."""
        ...

    def find(self, name: str, named_by: NamedBy | None) -> FileRef:
        """A file; `named_by` is the file that names it.

        Raises as `has` and `Unpacking.of_archive` do, and MigrationFailed (`ova-file-missing`).
        """
        ...

    def crc_of(self, at: FileRef) -> int | None:
        """The CRC-32 that a file still has to match."""
        ...


@dataclass(frozen=True)
class Directory:
    """Files in a directory."""

    path: Path
    mandate: Mandate
    names: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        try:
            file = open_file(self.path / name, self.mandate)
        except Failure as failure:
            if failure.code == "source-missing":
                return False
            raise
        os.close(file.fd)
        return True

    def find(self, name: str, named_by: NamedBy | None) -> FileRef:
        if named_by is not None and not self.has(name):
            raise _missing(self, name, named_by)
        return LocalFile(path=self.path / name, named_by=named_by)

    def crc_of(self, _at: FileRef) -> int | None:
        return None


@dataclass(frozen=True)
class ArchiveFiles:
    """Files in an archive, or unpacked from it."""

    path: Path
    files: Mapping[str, FileRef]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.files)

    def has(self, name: str) -> bool:
        return name in self.files

    def find(self, name: str, named_by: NamedBy | None) -> FileRef:
        if name not in self.files:
            raise _missing(self, name, named_by)
        return self.files[name]

    def crc_of(self, _at: FileRef) -> int | None:
        return None


class Summed:
    """The CRC-32 of what is read from a stream."""

    def __init__(self, stream: Unpacked) -> None:
        self._stream = stream
        self.crc = 0

    def read(self, length: int) -> bytes:
        data = self._stream.read(length)
        self.crc = zlib.crc32(data, self.crc)
        return data


class ZipFiles:
    """Files in a ZIP; compressed ones are unpacked when they are used."""

    def __init__(self, path: Path, members: tuple[zip.Zipped, ...], sources: Sources, unpacking: Unpacking) -> None:
        self.path = path
        self._members = {one.name: one for one in members}
        self._sources, self._unpacking = sources, unpacking
        self._unpacked: dict[str, FileRef] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def has(self, name: str) -> bool:
        return name in self._members

    def find(self, name: str, named_by: NamedBy | None) -> FileRef:
        if name not in self._members:
            raise _missing(self, name, named_by)
        one = self._members[name]
        if not one.is_deflated:
            return ArchiveMember(archive=self.path, member=name, offset=one.offset, length=one.length)
        if name not in self._unpacked:
            self._unpacked[name] = self._unpack(one)
        return self._unpacked[name]

    def crc_of(self, at: FileRef) -> int | None:
        """Unpacked files have matched it."""
        return self._members[at.member].crc if isinstance(at, ArchiveMember) else None

    def _unpack(self, one: zip.Zipped) -> FileRef:
        file = open_file(self.path, self._sources.mandate)
        try:
            content = in_window(file, MemberWindow(member=one.name, first=one.offset, length=one.packed))
            stream = Summed(Unpacked(content, "deflate"))
            found = self._unpacking.of_archive(one.name, stream.read, one.length, self.path)
            if stream.crc != one.crc or stream.read(1):
                raise damage.corrupt(self.path, f"{one.name} in it is not what was packed")
            return found
        finally:
            os.close(file.fd)


def _missing(package: Package, name: str, named_by: NamedBy | None) -> MigrationFailed:
    namer = f"{last_part(str(named_by.path))} names the file" if named_by else "there is no file"
    return MigrationFailed(
        "ova-file-missing",
        f"{package.path}: {namer} {shown(name)}, which is not there (files: {listed(package.names)})",
        hint="Copy or export the machine again with all of its files",
    )


def open_package(path: Path, sources: Sources, unpacking: Unpacking) -> Package:
    """The files of an OVA, or of a directory.

    Raises as `open_file`, the readers of the formats and `Unpacking.of_archive` do, and MigrationFailed
    (`source-not-ova`).
    """
    if _is_directory(path, sources.mandate):
        names = sources.mandate.names_in(path, MAX_FILES)
        return Directory(path, sources.mandate, tuple(sorted(name for name in names if not is_left_out(name))))
    file = open_file(path, sources.mandate)
    try:
        package = _of_file(file, sources, unpacking)
        file.require_unchanged()
        return package
    finally:
        os.close(file.fd)


def _is_directory(path: Path, mandate: Mandate) -> bool:
    """A path that cannot be opened is none: `open_file` reports the reason."""
    try:
        handle = mandate.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return stat.S_ISDIR(os.fstat(handle).st_mode)
    finally:
        os.close(handle)


def _of_file(file: SourceFile, sources: Sources, unpacking: Unpacking) -> Package:
    head = file.read(0, tar.BLOCK)
    if tar.is_tar(head):
        members = tar.read_members(Plain(file), file.path)
        return ArchiveFiles(
            file.path,
            {
                name: ArchiveMember(archive=file.path, member=name, offset=offset, length=length)
                for name, offset, length in members
            },
        )
    if zip.is_zip(head):
        return ZipFiles(file.path, zip.read_members(file), sources, unpacking)
    compression = tar_inside(file)
    if compression is not None:
        return _unpacked(file, compression, unpacking)
    _refuse_other(file)
    raise MigrationFailed(
        "source-not-ova",
        f"{file.path} is not an OVA: it is neither a tar archive, also compressed with gzip, bzip2, xz or zstd, nor a"
        " ZIP archive",
        hint="Name a descriptor with ovf:, a .vmx file with vmx: and a disk with vmdk:. For an OVA, export or copy it"
        " again",
    )


def _refuse_other(file: SourceFile) -> None:
    other = recognise(file, "ova")
    if other is not None:
        fact = f"{file.path} is not an OVA: it is {other.what}"
        raise MigrationFailed("source-not-ova", fact, hint=other.remedy("ova"))


def _unpacked(file: SourceFile, compression: Compression, unpacking: Unpacking) -> ArchiveFiles:
    stream = Unpacked(file, compression)
    files: dict[str, FileRef] = {}
    for one in tar.read_members(stream, file.path):
        files[one.name] = unpacking.of_archive(one.name, stream.read, one.length, file.path)
    stream.finish()
    return ArchiveFiles(file.path, files)
