"""The interface of targets: platforms that can run the migrated machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware, Plan
from hyper2kvmd.model.results import Artifact, PublishedDisk, Registration
from hyper2kvmd.report import Report

MakeReport = Callable[[tuple[PublishedDisk, ...]], Report]


class Target(Protocol):
    """The target of one order. It overwrites nothing, or with `overwrite` files of an earlier job only."""

    def check(self) -> None:
        """Before the source is read, refuse what `place` or `register` would refuse at the end for any machine."""
        ...

    def examine(self, plan: Plan) -> tuple[Concern, ...]:
        """Before a byte is written, refuse a machine that cannot run there. Returns concerns about it."""
        ...

    def room(self, needed_bytes: int) -> int:
        """How many of these bytes must be free at the images' destination, besides the conversion directory.

        Raises MigrationFailed (`space-never`) if they can never be free.
        """
        ...

    def place(self, plan: Plan, image: Image, make_report: MakeReport) -> Artifact:
        """Put images and report in place, all or none."""
        ...

    def placed(self) -> Artifact | None:
        """The files that an earlier attempt of this job has put in place and that its daemon does not know of."""
        ...

    def holds(self, artifact: Artifact) -> bool:
        """Whether the files that an earlier attempt placed are there and unchanged."""
        ...

    def register(self, hardware: Hardware, guest: Guest, artifact: Artifact) -> Registration:
        """Make the machine known. Placed files stay in any case."""
        ...
