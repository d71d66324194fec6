"""Targets that do not run here: files beside the images describe the machine, and a person takes them to the platform.

Such a target is a `Form`: the names of its files and the functions that write their text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from hyper2kvmd.host.destination import unusable
from hyper2kvmd.host.placing import Placing
from hyper2kvmd.host.workspace import REGISTERING
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware, Plan
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import Artifact, PublishedDisk, Registration
from hyper2kvmd.progress import Context
from hyper2kvmd.targets import directory
from hyper2kvmd.targets.target import MakeReport


@dataclass(frozen=True)
class NewMachine:
    """The machine that a form describes."""

    name: str
    hardware: Hardware
    guest: Guest
    artifact: Artifact

    @property
    def disks(self) -> tuple[PublishedDisk, ...]:
        return self.artifact.disks

    @property
    def description(self) -> str:
        return f"{self.name}: {self.guest.os_name or 'guest'}, migrated by hyper2kvmd"


Render: TypeAlias = Callable[[NewMachine], str]
Examine: TypeAlias = Callable[[Migration, Plan], Iterable[Concern]]


def runs_everything(_migration: Migration, _plan: Plan) -> Iterable[Concern]:
    """The `examine` of a platform without limits."""
    return ()


@dataclass(frozen=True)
class Form:
    """How one platform's machines are described."""

    files: Mapping[str, Render]
    """The text of each file, by the part of its name that follows the machine's."""
    examine: Examine = runs_everything
    """Refuses a machine that cannot run there; gives concerns about it."""

    def names(self, vm_name: str) -> list[str]:
        return [f"{vm_name}{suffix}" for suffix in self.files]


@dataclass(frozen=True)
class FileTarget:
    """A `Target`; `folder` is the job's own."""

    form: Form
    order: Order
    folder: Path
    ctx: Context

    @property
    def _migration(self) -> Migration:
        return self.order.migration

    def check(self) -> None:
        """Raises MigrationFailed (`output-unwritable`, `output-exists`), and Unsafe as `directory.check` does."""
        try:
            directory.check(self.order, self._migration.known_disks, self.form.names(self._migration.vm_name))
        except OSError as error:
            raise unusable(self.order.output_dir, error) from error

    def examine(self, plan: Plan) -> tuple[Concern, ...]:
        """Raises as the form's own `examine` and `directory.check` do."""
        if len(plan.disks) > self._migration.known_disks:
            directory.check(self.order, len(plan.disks))
        return tuple(self.form.examine(self._migration, plan))

    def room(self, needed_bytes: int) -> int:
        """Raises as `directory.room` does."""
        return directory.room(self.order, needed_bytes)

    def place(self, plan: Plan, image: Image, make_report: MakeReport) -> Artifact:
        """Raises as `directory.place` does."""
        return directory.place(self.order, plan, image, make_report, self.ctx)

    def placed(self) -> Artifact | None:
        """Raises as `directory.placed` does."""
        return directory.placed(self.order, self.folder)

    def holds(self, artifact: Artifact) -> bool:
        return directory.holds(self.order, artifact)

    def register(self, hardware: Hardware, guest: Guest, artifact: Artifact) -> Registration:
        """Write the form's files, all or none.

        Raises MigrationFailed (`output-exists`, `output-unwritable`), and Unsafe as `output_of` does. The images stay
        in any case.
        """
        name = self._migration.vm_name
        machine = NewMachine(name=name, hardware=hardware, guest=guest, artifact=artifact)
        texts = {f"{name}{suffix}": render(machine) for suffix, render in self.form.files.items()}
        with self.ctx.step(f"Writing {', '.join(texts)}"):
            self._place(texts)
        files = tuple(self.order.output_dir / file for file in texts)
        return Registration(name=name, files=files, macs=hardware.macs, defined=False)

    def _place(self, texts: Mapping[str, str]) -> None:
        try:
            with Placing(self.order, self.folder / REGISTERING) as placing:
                placing.write_all(texts)
        except OSError as error:
            raise unusable(self.order.output_dir, error) from error
