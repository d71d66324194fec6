"""The interface for readers of machines, and the choice of the reader by the key that names the source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.machines.libvirt_xml import LibvirtXml
from hyper2kvmd.machines.ova import Ova
from hyper2kvmd.machines.ovf_file import OvfFile
from hyper2kvmd.machines.vmx.beside import DisksWithVmx
from hyper2kvmd.machines.vmx.reader import Vmx
from hyper2kvmd.model.asked import Migration, SourceKey
from hyper2kvmd.model.machine import Machine


class MachineReader(Protocol):
    """Reads one kind of description."""

    def read(self, asked: Migration, sources: Sources) -> Machine:
        """The migration's source machine. A reader that needs a disk opens all of them in `sources`.

        Raises as `open_file` and `Sources.open` do.
        """
        ...


READERS: Mapping[SourceKey, MachineReader] = {
    "ovf": OvfFile(),
    "vmdk": DisksWithVmx(),
    "vmx": Vmx(),
    "ova": Ova(),
    "libvirt_xml": LibvirtXml(),
}
"""The reader for each key that names a source."""


def read_machine(asked: Migration, sources: Sources) -> Machine:
    """The machine that the migration names. Raises as its reader does."""
    return READERS[asked.source_key].read(asked, sources)
