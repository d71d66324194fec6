"""libvirt as a target: images in the output directory, the domain XML next to them, and a domain on request.

An existing domain is never overwritten, except one that `overwrite` allows (`replacing.py`): ours has a mark derived
from the job and the image, and libvirt refuses a second UUID for a name, and a second name for a UUID. The definition
is read back before it counts.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.hardware import expected_hardware
from hyper2kvmd.host.destination import require_unshared, unusable
from hyper2kvmd.host.placing import Placing
from hyper2kvmd.host.workspace import REGISTERING
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware, Plan
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import Artifact, Registration
from hyper2kvmd.progress import Context
from hyper2kvmd.targets import directory
from hyper2kvmd.targets.libvirt.capabilities import capabilities_for, require_supported, tpm_unsupported
from hyper2kvmd.targets.libvirt.concerns import domain_concerns, tpm_not_available
from hyper2kvmd.targets.libvirt.connection import Libvirt
from hyper2kvmd.targets.libvirt.definition import (
    choose_hypervisor,
    choose_identity,
    define,
    domain_exists,
    is_defined,
    require_disks,
)
from hyper2kvmd.targets.libvirt.devices import source_of
from hyper2kvmd.targets.libvirt.domain import Identity, domain_xml
from hyper2kvmd.targets.libvirt.pool import Pool
from hyper2kvmd.targets.libvirt.replacing import Replaceable, define_again, find_replaceable, seal, undefine
from hyper2kvmd.targets.target import MakeReport


@dataclass(frozen=True)
class LibvirtTarget:
    """A `Target`; `folder` is the job's own."""

    order: Order
    folder: Path
    ctx: Context
    libvirt: Libvirt
    pool: Pool | None

    @staticmethod
    def of(order: Order, folder: Path, ctx: Context) -> LibvirtTarget:
        """Raises as `Libvirt.of` and `Pool.of` do."""
        libvirt = Libvirt.of(order)
        return LibvirtTarget(order, folder, ctx, libvirt, Pool.of(order, libvirt))

    @property
    def _migration(self) -> Migration:
        return self.order.migration

    @property
    def _xml(self) -> Path:
        return self.order.output_dir / f"{self._migration.vm_name}.xml"

    def check(self) -> None:
        """Raises MigrationFailed (`output-unwritable`, `output-exists`, `libvirt-unreachable`, `domain-exists`), and
        Unsafe (`output-shared`, and as `directory.check` does).
        """
        try:
            directory.check(self.order, self._migration.known_disks, [self._xml.name])
            if self._migration.libvirt_import:
                require_unshared(self.order)
        except OSError as error:
            raise unusable(self.order.output_dir, error) from error
        if self._migration.libvirt_import and domain_exists(self.libvirt, self._migration.vm_name):
            self._require_replaceable()

    def _require_replaceable(self) -> None:
        if self._migration.overwrite:
            find_replaceable(self.libvirt, self.order)
            return
        raise MigrationFailed(
            "domain-exists",
            f"libvirt at {self.libvirt.uri} already has a domain {self._migration.vm_name}",
            hint="Choose another vm_name, or undefine that domain first",
        )

    def examine(self, plan: Plan) -> tuple[Concern, ...]:
        """Raises as `require_supported`, `directory.check` and `Pool.require_free` do."""
        if len(plan.disks) > self._migration.known_disks:
            directory.check(self.order, len(plan.disks))
        migration, name = self._migration, self._migration.vm_name
        if not migration.libvirt_import:
            return ()
        hardware = expected_hardware(migration, plan)
        found = capabilities_for(self.libvirt, name, hardware.machine)
        if found is not None:
            require_supported(self.libvirt, name, hardware, found)
        concerns = list(domain_concerns(self.libvirt, migration, plan.machine, hardware))
        if found is not None and hardware.tpm and found.lacks_tpm:
            if migration.tpm:
                raise tpm_unsupported(self.libvirt, name)
            concerns.append(tpm_not_available(self.libvirt, name))
        if self.pool is not None:
            self.pool.require_free(migration.output_names(len(plan.disks)), self.order.output_dir)
            concerns += self.pool.concerns(plan.needed_bytes, self.order.output_dir)
        return tuple(concerns)

    def room(self, needed_bytes: int) -> int:
        """Raises as `directory.room` does."""
        return directory.room(self.order, needed_bytes)

    def place(self, plan: Plan, image: Image, make_report: MakeReport) -> Artifact:
        """Raises as `directory.place` does, and as `find_replaceable` does before an image is replaced."""
        if self._migration.libvirt_import and self._migration.overwrite:
            find_replaceable(self.libvirt, self.order)
        return directory.place(self.order, plan, image, make_report, self.ctx)

    def placed(self) -> Artifact | None:
        """Raises as `directory.placed` does."""
        return directory.placed(self.order, self.folder)

    def holds(self, artifact: Artifact) -> bool:
        return directory.holds(self.order, artifact)

    def register(self, hardware: Hardware, guest: Guest, artifact: Artifact) -> Registration:
        """Write `<output_dir>/<vm_name>.xml`; with `libvirt_import`, define it and check that libvirt has it.

        libvirt gets the XML from the job's folder, since the owner of the output directory can change that one. Raises
        MigrationFailed: `libvirt-unreachable`, `domain-exists`, `libvirt-define-failed` (libvirt's own reason in the
        message), `output-exists`, `xml-unwritable`, `pool-unusable`, `volume-exists`, and Unsafe (`output-shared`, and
        as `output_of` does). Images and XML stay in any case.
        """
        migration, wanted = self._migration, self._migration.libvirt_import
        mark = str(uuid.uuid5(uuid.NAMESPACE_URL, f"hyper2kvmd:{self.order.job_id}:{artifact.disks[0].path}"))
        hypervisor = choose_hypervisor(self.libvirt, migration, self.ctx)
        old = find_replaceable(self.libvirt, self.order, mark) if wanted and migration.overwrite else None
        identity = choose_identity(self.libvirt, migration, hardware.uuid, mark, self.ctx)
        if wanted and hardware.tpm and self._lacks_tpm(hardware):
            hardware = hardware.with_changes(tpm=False)
        with self.ctx.step(f"Writing {self._xml.name}"):
            text = domain_xml(migration, hardware, guest, artifact, identity, hypervisor)
            own = self.folder / "domain.xml"
            own.write_text(text, encoding="utf-8")
            self._place_xml(text)
        if wanted:
            require_unshared(self.order)
            self._define(identity, own, artifact, old)
            seal(self.libvirt, identity.uuid, mark, self.order)
        return Registration(
            name=migration.vm_name,
            identity=identity.uuid,
            files=(self._xml,),
            macs=hardware.macs,
            defined=wanted,
            uri=self.libvirt.uri if wanted else None,
        )

    def _define(self, identity: Identity, own: Path, artifact: Artifact, old: Replaceable | None) -> None:
        """The domain, with its volumes if it has some; a failure leaves none of both that this attempt has made."""
        libvirt, name, pool = self.libvirt, self._migration.vm_name, self.pool
        ours = [source_of(disk.path, self._migration.libvirt_pool) for disk in artifact.disks]
        if old is None and is_defined(libvirt, name, identity, self._xml):
            require_disks(libvirt, name, identity, self._xml, ours)
            return
        if pool is not None:
            self._fill(pool, artifact)
        try:
            with self.ctx.step(f"Defining {name} in libvirt"):
                if old is not None:
                    undefine(libvirt, self.order, old, self.folder)
                define(libvirt, name, identity, own, self._xml, ours)
        except MigrationFailed:
            define_again(libvirt, self.folder)
            if pool is not None:
                pool.take_back(self.folder)
            raise

    def _fill(self, pool: Pool, artifact: Artifact) -> None:
        if pool.holds(self.order.output_dir):
            pool.refresh()
        else:
            pool.upload(artifact, self.folder, self.ctx)

    def _lacks_tpm(self, hardware: Hardware) -> bool:
        """The plan said so, or refused the machine."""
        found = capabilities_for(self.libvirt, self._migration.vm_name, hardware.machine)
        return found is not None and found.lacks_tpm

    def _place_xml(self, text: str) -> None:
        try:
            with Placing(self.order, self.folder / REGISTERING) as placing:
                placing.write_all({self._xml.name: text})
        except OSError as error:
            raise MigrationFailed(
                "xml-unwritable",
                f"the domain XML {self._xml} cannot be written: {error.strerror}",
                hint="Correct the directory's owner, mode or free space, then retry",
                kind=Kind.OPERATOR,
            ) from error
