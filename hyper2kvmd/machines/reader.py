"""The interface for readers of machines, and the choice of the reader."""

from __future__ import annotations

from typing import Protocol

from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.machines.vmx import Vmx
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.machine import Machine


class MachineReader(Protocol):
    """Reads one kind of description."""

    def read(self, asked: Migration, sources: Sources) -> Machine:
        """The migration's source machine. A reader that needs a disk opens all of them in `sources`.

        Raises as `open_file` and `Sources.open` do.
        """
        ...


VMDK: MachineReader = Vmx()
"""The reader of the key `vmdk`, the only key for a source so far."""


def read_machine(asked: Migration, sources: Sources) -> Machine:
    """The machine that the migration names. Raises as its reader does."""
    return VMDK.read(asked, sources)
