"""A machine from an OVF descriptor, whose disks are plain files beside it.

Both are untrusted: each file is opened by the rights of the submitter, the disks also by those of the owner of the
descriptor.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator

from hyper2kvmd.disk.files import SourceFile, open_file
from hyper2kvmd.disk.sources.links import read_link
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.ovf.described import DescribedDisk, assemble
from hyper2kvmd.machines.ovf.elements import MAX_BYTES
from hyper2kvmd.machines.ovf.envelope import read_envelope
from hyper2kvmd.machines.ovf.hrefs import files_of
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import LocalFile, NamedBy
from hyper2kvmd.model.machine import Machine

OVERRIDES = ("memory", "vcpus", "uefi", "secure_boot")
UNPACKERS = {"gzip": "gunzip", "bzip2": "bunzip2"}


class OvfFile:
    """A `MachineReader` for the key `ovf`."""

    def read(self, asked: Migration, sources: Sources) -> Machine:
        """Raises as `open_file`, `read_envelope` and `files_of` do, and `ovf-disk-unsupported`."""
        path = asked.ovf
        assert path is not None  # noqa: S101 - the reader was chosen by this key
        file = open_file(path, sources.mandate)
        try:
            text = file.read(0, MAX_BYTES + 1)
            beside = FilesBeside(file, sources.mandate)
        finally:
            os.close(file.fd)
        described = read_envelope(
            text,
            name=str(path),
            configuration=asked.configuration,
            system=asked.vm_name,
            overridden=frozenset(key for key in OVERRIDES if getattr(asked, key) is not None),
        )
        return assemble(described, beside.locate)


class FilesBeside:
    """The files in the directory of an open descriptor."""

    def __init__(self, descriptor: SourceFile, mandate: Mandate) -> None:
        self._path = descriptor.path
        self._named_by = NamedBy(path=descriptor.path, uid=os.fstat(descriptor.fd).st_uid)
        self._mandate = mandate.named_by(descriptor.fd, descriptor.path)

    def locate(self, disk: DescribedDisk) -> LocalFile:
        """The disk's file. Raises as `files_of` and `open_file` do, and MigrationFailed (`ovf-disk-unsupported`)."""
        file, *more = files_of(disk, self._exists, str(self._path))
        if more or disk.packing != "none":
            raise self._packed(disk, (file, *more))
        self._require_parents(disk, file)
        return LocalFile(path=self._path.with_name(file), named_by=self._named_by)

    def _exists(self, name: str) -> bool:
        """Raises as `open_file` does, but for a file that is missing."""
        try:
            with self._opened(name):
                return True
        except MigrationFailed as failure:
            if failure.code == "source-missing":
                return False
            raise

    def _packed(self, disk: DescribedDisk, files: tuple[str, ...]) -> MigrationFailed:
        whole = shlex.quote(files[0].removesuffix(".000000000"))
        if disk.packing == "none":
            fact = f"in {len(files)} parts"
            hint = f"Join them (cat {whole}.[0-9]* > {whole}) and remove ovf:chunkSize from the descriptor"
        else:
            fact = f"compressed with {disk.packing}"
            hint = f"Unpack it ({UNPACKERS[disk.packing]} {whole}) and correct its File in the descriptor"
        message = f"the disk {faults.shown(disk.id)} is {fact}, which is not supported beside a descriptor"
        return faults.disk_unsupported(str(self._path), message, hint)

    def _require_parents(self, disk: DescribedDisk, name: str) -> None:
        """Refuse a delta whose file does not name the file of its parent: without it, its content is unknown.

        The reader of the disk follows the names, and compares the identifiers of the files.
        """
        while disk.parent is not None:
            parent, *_ = files_of(disk.parent, self._exists, str(self._path))
            with self._opened(name) as file:
                link = read_link(file)
            if link.parent_name != parent:
                fact = (
                    f"the disk {faults.shown(disk.id)} has only the differences from {faults.shown(disk.parent.id)},"
                    f" but its file {name} does not name {parent} as its parent"
                )
                raise faults.disk_unsupported(
                    str(self._path), fact, "Export the machine again after its snapshots were consolidated"
                )
            disk, name = disk.parent, parent

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[SourceFile]:
        file = open_file(self._path.with_name(name), self._mandate)
        try:
            yield file
        finally:
            os.close(file.fd)
