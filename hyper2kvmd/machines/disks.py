"""A machine that is named by its disks alone. A .vmx beside the first one tells more."""

from __future__ import annotations

from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.machines import vmx
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.machine import LocalFile, Machine, MachineDisk


class Disks:
    """The `MachineReader` of the key `vmdk`."""

    def read(self, asked: Migration, mandate: Mandate) -> Machine:
        disks = tuple(MachineDisk(at=LocalFile(path=path)) for path in asked.vmdk)
        found = vmx.read_for(asked.vmdk[0], mandate)
        return Machine(disks=disks, memory=found.memory, vcpus=found.vcpus, nics=found.nics, concerns=found.concerns)
