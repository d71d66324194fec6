"""Reads the machine of an OVF package: its descriptor, its disks wherever they are packed, and its manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from hyper2kvmd.disk import faults as damage
from hyper2kvmd.disk.file_names import last_part
from hyper2kvmd.disk.sources.digests import hasher_for, require_digest
from hyper2kvmd.disk.sources.links import read_link
from hyper2kvmd.disk.sources.location import open_stored
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.machines.archives.package import Package
from hyper2kvmd.machines.archives.unpacking import Unpacking
from hyper2kvmd.machines.manifest import Manifest
from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.ovf.described import DescribedDisk, assemble
from hyper2kvmd.machines.ovf.elements import MAX_BYTES
from hyper2kvmd.machines.ovf.envelope import read_envelope
from hyper2kvmd.machines.ovf.hrefs import files_of
from hyper2kvmd.machines.seals import read_manifest
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import (
    ArchiveMember,
    Checksum,
    DiskRef,
    EmptyDisk,
    FileIdentity,
    FileRef,
    LocalFile,
    NamedBy,
    StoredFile,
    UnpackedFile,
)
from hyper2kvmd.model.machine import Machine

OVERRIDES = ("memory", "vcpus", "uefi", "secure_boot")
COMPRESSED = (".gz", ".gzip", ".bz2")
PART = ".000000000"
SHOWN = 3


def read_packaged(package: Package, descriptor: str, asked: Migration, sources: Sources, unpack: Unpacking) -> Machine:
    """The machine that the file `descriptor` of the package describes.

    Raises as `open_stored`, `read_envelope`, `PackagedDisks.locate`, `read_manifest` and `Sources.open` do, and
    MigrationFailed (`source-digest-differs`, `signature-invalid`).
    """
    at = package.find(descriptor, None)
    with open_stored(at, sources.mandate) as file:
        text = file.read(0, MAX_BYTES + 1)
        own = StoredFile(at=at, identity=file.identity)
        files = PackageFiles(package, descriptor, NamedBy(path=file.path, uid=os.fstat(file.fd).st_uid), sources)
    manifest, concerns = read_manifest(files, asked.ova_ca)
    for checksum in files.checksums(own, manifest) if len(text) <= MAX_BYTES else ():
        digest = hasher_for(checksum)
        digest.update(text)
        require_digest(checksum, digest.hexdigest())
    described = read_envelope(
        text,
        name=str(at),
        configuration=asked.configuration,
        system=asked.vm_name,
        overridden=frozenset(key for key in OVERRIDES if getattr(asked, key) is not None),
    )
    disks = PackagedDisks(files, unpack)
    machine = assemble(described, disks.locate)
    opened = sources.open([disk.at for disk in machine.disks])
    stored = [disks.stored(disk.at, source.identity) for disk, source in zip(machine.disks, opened, strict=True)]
    sealed = tuple(
        disk.with_changes(checksums=tuple(said for one in found for said in files.checksums(one, manifest)))
        for disk, found in zip(machine.disks, stored, strict=True)
    )
    used = (own, *(one for found in stored for one in found))
    unlisted = [_name(one) for one in used if manifest.name and not manifest.digests.get(_name(one))]
    if unlisted and asked.ova_ca is not None:
        raise _unlisted(manifest, unlisted)
    return machine.with_changes(disks=sealed, concerns=(*machine.concerns, *concerns, *_incomplete(manifest, unlisted)))


class PackageFiles:
    """The files beside the descriptor of a package."""

    def __init__(self, package: Package, descriptor: str, named_by: NamedBy, sources: Sources) -> None:
        self.package, self.descriptor, self.sources = package, descriptor, sources
        self._named_by = named_by
        self._folder = descriptor[: -len(last_part(descriptor))]

    @property
    def mandate(self) -> Mandate:
        return self.sources.mandate

    @property
    def place(self) -> Path:
        return self.package.path

    @property
    def stem(self) -> str:
        """The name of the descriptor without its suffix, which the manifest and the certificate share."""
        return PurePath(last_part(self.descriptor)).stem

    def has(self, name: str) -> bool:
        """Raises as `Package.has` does."""
        return self.package.has(self._folder + name)

    def find(self, name: str) -> FileRef:
        """Raises as `Package.find` does."""
        return self.package.find(self._folder + name, self._named_by)

    def read(self, name: str, limit: int) -> bytes:
        """The first bytes of a file that exists. Raises as `open_stored` does."""
        with open_stored(self.find(name), self.sources.mandate) as file:
            return file.read(0, limit)

    def with_suffix(self, suffix: str) -> str | None:
        """The file that belongs to the descriptor by its name, in any case; else the only one with that suffix.

        Beside several descriptors, only the name counts.
        """
        beside = [name.removeprefix(self._folder) for name in self.package.names if name.startswith(self._folder)]
        found = [name for name in beside if name.lower().endswith(suffix) and "/" not in name]
        for name in (self.stem + suffix, *sorted(found)):
            if PurePath(name).stem == self.stem and self.has(name):
                return name
        descriptors = [name for name in beside if name.lower().endswith(".ovf")]
        return found[0] if len(found) == len(descriptors) == 1 else None

    def checksums(self, stored: StoredFile, manifest: Manifest) -> Iterator[Checksum]:
        """What the manifest and the archive say of a file."""
        for algorithm, digest in manifest.digests.get(_name(stored), ()):
            yield Checksum(of=stored, algorithm=algorithm, digest=digest, manifest=manifest.name)
        crc = self.package.crc_of(stored.at)
        if crc is not None:
            yield Checksum(of=stored, algorithm="crc32", digest=f"{crc:08x}", manifest=self.package.path.name)


class PackagedDisks:
    """Finds the disks that a descriptor names, and unpacks those that are packed."""

    def __init__(self, files: PackageFiles, unpacking: Unpacking) -> None:
        self.files = files
        self._unpacking = unpacking
        self._packed: dict[DiskRef, tuple[StoredFile, ...]] = {}
        self._located: dict[tuple[str, ...], DiskRef] = {}

    def stored(self, at: DiskRef, opened: Sequence[FileIdentity]) -> tuple[StoredFile, ...]:
        """The files of the package from which an open disk is read; none of a disk of zeros."""
        if isinstance(at, EmptyDisk):
            return ()
        if at in self._packed:
            return self._packed[at]
        return tuple(StoredFile(at=_beside(at, one), identity=one) for one in opened)

    def locate(self, disk: DescribedDisk) -> DiskRef:
        """Raises as `files_of`, `open_stored` and `Unpacking.of_disk` do, and MigrationFailed (`ova-file-missing`,
        `ovf-disk-unsupported`, `source-truncated`, `source-corrupt`)."""
        name = str(self.files.package.path / self.files.descriptor)
        names = files_of(disk, self.files.has, name)
        if names not in self._located:
            parts = tuple(self._found(self.files.find(one)) for one in names)
            _require_sizes(disk, parts, last_part(name))
            at = self._at(disk, names, parts)
            self._require_parents(disk, names, name)
            self._located[names] = at
        return self._located[names]

    def _found(self, at: FileRef) -> StoredFile:
        with open_stored(at, self.files.mandate) as file:
            return StoredFile(at=at, identity=file.identity)

    def _at(self, disk: DescribedDisk, names: tuple[str, ...], parts: tuple[StoredFile, ...]) -> DiskRef:
        if len(parts) == 1 and disk.packing == "none":
            return parts[0].at
        name = names[0].removesuffix(PART) if len(names) > 1 else names[0]
        if disk.packing != "none" and name.lower().endswith(COMPRESSED):
            name = PurePath(name).stem
        at = self._unpacking.of_disk(parts, None if disk.packing == "none" else disk.packing, name)
        self._packed[at] = parts
        return at

    def _require_parents(self, disk: DescribedDisk, names: tuple[str, ...], descriptor: str) -> None:
        """Refuse a delta whose file does not name the file of its parent: without it, its content is unknown.

        The reader of the disk follows the names, and compares the identifiers of the files.
        """
        while disk.parent is not None:
            parent = files_of(disk.parent, self.files.has, descriptor)
            with open_stored(self.files.find(names[0]), self.files.sources.mandate) as file:
                link = read_link(file)
            if len(names) > 1 or disk.packing != "none" or link.parent_name != parent[0]:
                fact = (
                    f"the disk {faults.shown(disk.id)} has only the differences from {faults.shown(disk.parent.id)},"
                    f" but its file {names[0]} does not name {parent[0]} as its parent"
                )
                raise faults.disk_unsupported(
                    descriptor, fact, "Export the machine again after its snapshots were consolidated"
                )
            disk, names = disk.parent, parent


def _name(stored: StoredFile) -> str:
    """By which a manifest lists it."""
    return last_part(str(stored))


def _beside(at: FileRef, file: FileIdentity) -> FileRef:
    """The location of a file that is opened with the disk at `at`."""
    match at:
        case ArchiveMember():
            return at
        case LocalFile():
            return at.with_changes(path=file.path)
        case UnpackedFile():
            return UnpackedFile(path=file.path, origin=str(Path(at.origin).with_name(file.path.name)))


def _require_sizes(disk: DescribedDisk, parts: Sequence[StoredFile], descriptor: str) -> None:
    """Refuse a part that would shift the next ones, and a file that has lost its end.

    Some exporters count the bytes of a compressed disk before its compression: a decompressor notices its end.
    """
    if not disk.file_size or (len(parts) == 1 and disk.packing != "none"):
        return
    most = disk.part_size or disk.file_size
    for part, first in zip(parts, range(0, disk.file_size, most), strict=True):
        found, wanted = part.identity.read_bytes, min(most, disk.file_size - first)
        if found < wanted:
            raise damage.truncated(Path(str(part)), f"it has {found} of the {wanted} bytes that {descriptor} states")
        if found > wanted and len(parts) > 1:
            raise damage.corrupt(Path(str(part)), f"it has {found} bytes, and {descriptor} states {wanted}")


def _unlisted(manifest: Manifest, names: list[str]) -> MigrationFailed:
    return MigrationFailed(
        "signature-invalid",
        f"the signed manifest {manifest.name} does not list {faults.listed(names[:SHOWN])}",
        hint="Copy or export the machine again, or remove ova_ca to migrate it without a verified signature",
    )


def _incomplete(manifest: Manifest, names: list[str]) -> Iterator[Concern]:
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        yield Concern(
            code="manifest-incomplete",
            message=f"{manifest.name} does not list {', '.join(names[:SHOWN])}{more}: damage of them is not noticed",
            hint="Compare their checksums with those of the originals by hand",
        )
