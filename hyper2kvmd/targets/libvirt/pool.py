"""A storage pool of libvirt: which one a job may use, and the upload of images as its volumes.

A volume is never overwritten. The volumes of an attempt that failed are removed, also by the next attempt after a kill:
a note in the job's folder lists them as soon as libvirt has created them. A volume of that name that somebody else
creates is not listed, so it is never removed.
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
from hyper2kvmd.host.workspace import signals_held
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import Artifact
from hyper2kvmd.progress import Context
from hyper2kvmd.targets.libvirt.connection import Libvirt, reason_of

NOTE = "uploading.json"


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
        created: list[str] = []
        try:
            for disk in artifact.disks:
                with ctx.step(f"Uploading {disk.path.name} to the storage pool {self.name}"):
                    self._create(disk.path, artifact.format, created, folder / NOTE)
                    self._run("vol-upload", *self._volume(disk.path), "--sparse", "--file", str(disk.path))
        except BaseException:
            self.take_back(folder)
            raise

    def take_back(self, folder: Path) -> None:
        """Remove the volumes that this attempt or a killed one has created."""
        note = folder / NOTE
        for name in _noted(note):
            self.libvirt.virsh("vol-delete", "--pool", self.name, name)
        note.unlink(missing_ok=True)

    def _create(self, image: Path, image_format: str, created: list[str], note: Path) -> None:
        if image.name in self._volumes():
            raise self._exists(image.name)
        size = str(image.stat().st_size)
        with signals_held():
            self._run("vol-create-as", self.name, image.name, size, "--allocation", "0", "--format", image_format)
            created.append(image.name)
            write_durably(note, json.dumps(created))

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
            kind=Kind.OPERATOR,
        )


def _noted(note: Path) -> tuple[str, ...]:
    """The volumes in the note; none if it is missing or damaged."""
    try:
        return tuple(json.loads(note.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return ()
