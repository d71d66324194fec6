"""The seam for descriptions of machines, and the choice of the reader."""

from __future__ import annotations

from typing import Protocol

from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.machines.disks import Disks
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.machine import Machine


class MachineReader(Protocol):
    """Reads one kind of description."""

    def read(self, asked: Migration, mandate: Mandate) -> Machine:
        """What the migration's source was. Raises as `open_file` does for the files that the migration names."""
        ...


DISKS: MachineReader = Disks()


def read_machine(asked: Migration, mandate: Mandate = ANYONE) -> Machine:
    """The machine that the migration names: by its disks, the only source key so far. Raises as `Disks.read` does."""
    return DISKS.read(asked, mandate)
