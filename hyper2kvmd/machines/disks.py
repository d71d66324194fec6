"""A machine of which only the disks are known."""

from __future__ import annotations

from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import LocalFile
from hyper2kvmd.model.machine import Machine, MachineDisk


class Disks:
    """A `MachineReader`: the disks of the key `vmdk`, and nothing else. It opens none of them."""

    def read(self, asked: Migration, _sources: Sources) -> Machine:
        return Machine(disks=tuple(MachineDisk(at=LocalFile(path=path)) for path in asked.vmdk))
