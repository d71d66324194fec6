"""Reads the machine of an OVF package: its descriptor, its disks wherever they are packed, and its manifest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from hyper2kvmd.disk.file_names import last_part
from hyper2kvmd.disk.sources.digests import require_digest
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
from hyper2kvmd.model.disks import Checksum, DiskRef, FileRef, NamedBy
from hyper2kvmd.model.machine import Machine, MachineDisk

OVERRIDES = ("memory", "vcpus", "uefi", "secure_boot")
COMPRESSED = (".gz", ".gzip", ".bz2")
PART = ".000000000"
SHOWN = 3


def read_packaged(package: Package, descriptor: str, asked: Migration, sources: Sources, unpack: Unpacking) -> Machine:
    """The machine that the file `descriptor` of the package describes.

    Raises as `open_stored`, `read_envelope`, `files_of`, `read_manifest` and `Unpacking.of_disk` do, and
    MigrationFailed (`ova-file-missing`, `ovf-disk-unsupported`, `source-digest-differs`).
    """
    at = package.find(descriptor, None)
    with open_stored(at, sources.mandate) as file:
        text = file.read(0, MAX_BYTES + 1)
        files = PackageFiles(package, descriptor, NamedBy(path=file.path, uid=os.fstat(file.fd).st_uid), sources)
    manifest, concerns = read_manifest(files, asked.ova_ca)
    for checksum in files.checksums(descriptor, at, manifest) if len(text) <= MAX_BYTES else ():
        require_digest(checksum, hashlib.new(checksum.algorithm, text, usedforsecurity=False).hexdigest())
    described = read_envelope(
        text,
        name=str(at),
        configuration=asked.configuration,
        system=asked.vm_name,
        overridden=frozenset(key for key in OVERRIDES if getattr(asked, key) is not None),
    )
    disks = PackagedDisks(files, unpack)
    machine = assemble(described, disks.locate)
    sealed = tuple(_sealed(disk, disks, manifest) for disk in machine.disks)
    unlisted = [name for name in (descriptor, *disks.used) if manifest.name and not files.entries(name, manifest)]
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

    def entries(self, name: str, manifest: Manifest) -> bool:
        return bool(manifest.digests.get(last_part(name)))

    def checksums(self, name: str, at: FileRef, manifest: Manifest) -> Iterator[Checksum]:
        """What the manifest says of a file."""
        for algorithm, digest in manifest.digests.get(last_part(name), ()):
            yield Checksum(of=at, algorithm=algorithm, digest=digest, manifest=manifest.name)


class PackagedDisks:
    """Finds the disks that a descriptor names, and unpacks those that are packed."""

    def __init__(self, files: PackageFiles, unpacking: Unpacking) -> None:
        self.files = files
        self._unpacking = unpacking
        self._parts: dict[DiskRef, tuple[tuple[str, FileRef], ...]] = {}
        self._located: dict[tuple[str, ...], DiskRef] = {}

    @property
    def used(self) -> tuple[str, ...]:
        """The names of all files that the disks consist of."""
        return tuple(name for parts in self._parts.values() for name, _ in parts)

    def parts_of(self, at: DiskRef) -> tuple[tuple[str, FileRef], ...]:
        """Name and location of the stored files of a disk; none of a disk of zeros."""
        return self._parts.get(at, ())

    def locate(self, disk: DescribedDisk) -> DiskRef:
        """Raises as `files_of` and `Unpacking.of_disk` do, and MigrationFailed (`ova-file-missing`,
        `ovf-disk-unsupported`)."""
        name = str(self.files.package.path / self.files.descriptor)
        names = files_of(disk, self.files.has, name)
        if names not in self._located:
            refs = tuple(self.files.find(one) for one in names)
            at = self._at(disk, names, refs)
            self._require_parents(disk, names, name)
            self._located[names] = at
            self._parts[at] = tuple(zip(names, refs, strict=True))
        return self._located[names]

    def _at(self, disk: DescribedDisk, names: tuple[str, ...], refs: tuple[FileRef, ...]) -> DiskRef:
        if len(refs) == 1 and disk.packing == "none":
            return refs[0]
        name = names[0].removesuffix(PART) if len(names) > 1 else names[0]
        if disk.packing != "none" and name.lower().endswith(COMPRESSED):
            name = PurePath(name).stem
        return self._unpacking.of_disk(refs, None if disk.packing == "none" else disk.packing, name)

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


def _sealed(disk: MachineDisk, disks: PackagedDisks, manifest: Manifest) -> MachineDisk:
    """The disk with the checksums of its files."""
    found = [one for name, at in disks.parts_of(disk.at) for one in disks.files.checksums(name, at, manifest)]
    return disk.with_changes(checksums=tuple(found))


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
        )
