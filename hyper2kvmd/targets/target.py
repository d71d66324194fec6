"""The seam for targets: what can run the migrated machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware, Plan
from hyper2kvmd.model.results import Artifact, PublishedDisk, Registration
from hyper2kvmd.report import Report

MakeReport = Callable[[tuple[PublishedDisk, ...]], Report]


class Target(Protocol):
    """Where the machine of one order goes. Nothing that exists there is overwritten."""

    def check(self) -> None:
        """Before a byte is written: refuse what `place` or `register` would refuse at the end."""
        ...

    def room(self, needed_bytes: int) -> int:
        """How many of these bytes must be free where the images go, besides the conversion directory.

        Raises MigrationFailed (`space-never`) where they can never be.
        """
        ...

    def place(self, plan: Plan, image: Image, make_report: MakeReport) -> Artifact:
        """Put images and report in place, together or not at all."""
        ...

    def holds(self, artifact: Artifact) -> bool:
        """Whether what an earlier attempt placed is there and unchanged."""
        ...

    def register(self, hardware: Hardware, guest: Guest, artifact: Artifact) -> Registration:
        """Make the machine known. What was placed stays, whatever happens."""
        ...
