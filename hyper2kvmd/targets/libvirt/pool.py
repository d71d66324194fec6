"""A storage pool of libvirt: which one a job may use, and the upload of images as its volumes.

A volume is never overwritten. The volumes of an attempt that failed are removed, also by the next attempt after a kill:
a note in the job's folder lists them before libvirt creates them, and again once it has. A volume that may be somebody
else's, because the kill came in between, is removed only if it is empty and has exactly the size of the image.
"""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd import units
from hyper2kvmd.errors import Kind, MigrationFailed, Unsafe
from hyper2kvmd.host.files import write_durably
from hyper2kvmd.host.workspace import UPLOADING, signals_held
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import Artifact
from hyper2kvmd.progress import Context
from hyper2kvmd.targets.libvirt.connection import Libvirt, reason_of

EMPTY_BYTES = 256 << 10
"""Bytes that an empty QCOW2 volume occupies at most; one cluster of data needs 128 KiB more."""
ROUNDING = 1024
"""libvirt rounds the size of a QCOW2 volume up to whole KiB."""


@dataclass(frozen=True)
class Pool:
    libvirt: Libvirt
    name: str

    @staticmethod
    def of(order: Order, libvirt: Libvirt) -> Pool | None:
        """The pool that the migration names.

        Raises Unsafe (`libvirt-pool-not-allowed`) for one that is not in the order's bounds.
        """
        name, listed = order.migration.libvirt_pool, order.bounds.libvirt_pools
        if name is None:
            return None
        if (order.submitter is not None or listed is not None) and name not in (listed or ()):
            raise Unsafe(
                "libvirt-pool-not-allowed",
                f"libvirt_pool {name}: not listed in allowed_libvirt_pools",
                hint="Remove the key, or ask the administrator to add the pool to allowed_libvirt_pools",
            )
        return Pool(libvirt, name)

    def require_free(self, names: Sequence[str], output_dir: Path) -> None:
        """Raises MigrationFailed (`pool-unusable`, `volume-exists`)."""
        volumes = self._volumes()
        taken = [] if self.holds(output_dir) else [name for name in names if name in volumes]
        if taken:
            raise self._exists(taken[0])

    def holds(self, directory: Path) -> bool:
        """Whether its volumes are the files in this directory of this host."""
        shown = self.libvirt.virsh("pool-dumpxml", self.name)
        if ":///" not in self.libvirt.uri or shown.returncode != 0:
            return False
        target = ET.fromstring(shown.stdout).findtext("target/path")  # noqa: S314
        return target is not None and os.path.realpath(target) == os.path.realpath(directory)

    def concerns(self, needed_bytes: int, output_dir: Path) -> Iterator[Concern]:
        """A concern if the images may not fit."""
        info = self.libvirt.virsh("pool-info", "--bytes", self.name).stdout
        free = next((line.split()[-1] for line in info.splitlines() if line.startswith("Available:")), "")
        if free.isdecimal() and int(free) < needed_bytes and not self.holds(output_dir):
            yield Concern(
                code="pool-short",
                message=f"the storage pool {self.name} has {units.size(int(free))} free,"
                f" and the images may need {units.size(needed_bytes)}",
                hint="Free space there before the images are uploaded",
            )

    def refresh(self) -> None:
        """Make libvirt notice files that were placed in its directory. Raises MigrationFailed (`pool-unusable`)."""
        self._run("pool-refresh", self.name)

    def upload(self, artifact: Artifact, folder: Path, ctx: Context) -> None:
        """Raises MigrationFailed (`pool-unusable`, `volume-exists`); no volume of ours is left then."""
        self.take_back(folder)
        note = _Note(folder / UPLOADING)
        try:
            for disk in artifact.disks:
                with ctx.step(f"Uploading {disk.path.name} to the storage pool {self.name}"):
                    self._create(disk.path, artifact.format, note)
                    self._run("vol-upload", *self._volume(disk.path), "--sparse", "--file", str(disk.path))
        except BaseException:
            self.take_back(folder)
            raise

    def take_back(self, folder: Path) -> None:
        """Remove the volumes that this attempt or a killed one has created."""
        note = _Note(folder / UPLOADING)
        for name, intended in note.read().items():
            if intended is None or self._is_empty(name, intended):
                self.libvirt.virsh("vol-delete", "--pool", self.name, name)
        note.remove()

    def _create(self, image: Path, image_format: str, note: _Note) -> None:
        if image.name in self._volumes():
            raise self._exists(image.name)
        size = image.stat().st_size
        note.record(image.name, size)
        with signals_held():
            try:
                self._run(
                    "vol-create-as", self.name, image.name, str(size), "--allocation", "0", "--format", image_format
                )
            except MigrationFailed:
                note.forget(image.name)
                raise
            note.record(image.name, None)

    def _is_empty(self, name: str, intended: int) -> bool:
        """Whether the volume has the intended capacity, rounded up, and no content."""
        shown = self.libvirt.virsh("vol-info", "--bytes", "--pool", self.name, name).stdout
        found = {line.split(":")[0]: line.split()[1] for line in shown.splitlines() if line.endswith(" bytes")}
        capacity, allocated = int(found.get("Capacity", 0)), int(found.get("Allocation", EMPTY_BYTES + 1))
        return intended <= capacity < intended + ROUNDING and allocated <= EMPTY_BYTES

    def _volume(self, image: Path) -> tuple[str, ...]:
        return "--pool", self.name, "--vol", image.name

    def _volumes(self) -> frozenset[str]:
        return frozenset(line.split()[0] for line in self._run("vol-list", self.name).splitlines() if line.strip())

    def _run(self, *words: str) -> str:
        done = self.libvirt.virsh(*words)
        if done.returncode != 0:
            raise MigrationFailed(
                "pool-unusable",
                f"the storage pool {self.name} of libvirt at {self.libvirt.uri} cannot be used: {reason_of(done)}",
                hint=f"Correct the cause, for example by `virsh pool-start {self.name}`, then retry",
                kind=Kind.OPERATOR,
            )
        return done.stdout

    def _exists(self, name: str) -> MigrationFailed:
        return MigrationFailed(
            "volume-exists",
            f"the storage pool {self.name} of libvirt at {self.libvirt.uri} already has a volume {name}",
            hint="Choose another vm_name or libvirt_pool, or remove that volume: nothing is ever overwritten",
        )


@dataclass(frozen=True)
class _Note:
    """The volumes of an attempt: the intended capacity of one that is about to be created, None for a created one."""

    path: Path

    def read(self) -> dict[str, int | None]:
        """No volume if the note is missing or damaged."""
        try:
            return dict(json.loads(self.path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return {}

    def record(self, name: str, intended: int | None) -> None:
        write_durably(self.path, json.dumps({**self.read(), name: intended}))

    def forget(self, name: str) -> None:
        write_durably(self.path, json.dumps({one: size for one, size in self.read().items() if one != name}))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
