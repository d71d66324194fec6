"""A machine from an OVA: an OVF descriptor and its disks in one archive, or unpacked in a directory."""

from __future__ import annotations

from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.machines.archives.package import Package, open_package
from hyper2kvmd.machines.archives.unpacking import Unpacking
from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.packaged import read_packaged
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.machine import Machine


class Ova:
    """A `MachineReader` for the key `ova`."""

    def read(self, asked: Migration, sources: Sources) -> Machine:
        """Raises as `open_package` and `read_packaged` do, and MigrationFailed (`ova-descriptor-unclear`)."""
        path = asked.ova
        assert path is not None  # noqa: S101 - the reader was chosen by this key
        unpacking = Unpacking(sources)
        package = open_package(path, sources, unpacking)
        return read_packaged(package, _descriptor(package), asked, sources, unpacking)


def _descriptor(package: Package) -> str:
    """The name of its only descriptor."""
    found = [name for name in package.names if name.lower().endswith(".ovf")]
    if len(found) == 1:
        return found[0]
    if found:
        fact, hint = (
            f"has {len(found)} descriptors: {faults.listed(found)}",
            "Unpack it, and name one of them with ovf:",
        )
    else:
        fact = f"has no descriptor (.ovf), only {faults.listed(package.names)}"
        hint = "Use vmdk: for a disk, and vmx: for a .vmx file"
    raise MigrationFailed("ova-descriptor-unclear", f"{package.path} {fact}", hint=hint)
