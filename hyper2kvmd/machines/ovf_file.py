"""A machine from an OVF descriptor, with its disks in files beside it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from hyper2kvmd.disk.files import open_file
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.machines.archives.names import MAX_FILES
from hyper2kvmd.machines.archives.package import Directory
from hyper2kvmd.machines.archives.unpacking import Unpacking
from hyper2kvmd.machines.other_key import recognise
from hyper2kvmd.machines.ovf import faults
from hyper2kvmd.machines.packaged import read_packaged
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.machine import Machine


class OvfFile:
    """A `MachineReader` for the key `ovf`."""

    def read(self, asked: Migration, sources: Sources) -> Machine:
        """Raises as `open_file` and `read_packaged` do, and MigrationFailed (`ovf-unreadable`)."""
        path = asked.ovf
        assert path is not None  # noqa: S101 - the reader was chosen by this key
        _refuse_other(path, sources.mandate)
        folder = Directory(path.parent, sources.mandate, _names_in(path.parent, sources.mandate))
        return read_packaged(folder, path.name, asked, sources, Unpacking(sources))


def _refuse_other(path: Path, mandate: Mandate) -> None:
    file = open_file(path, mandate)
    try:
        other = recognise(file, "ovf")
    finally:
        os.close(file.fd)
    if other is not None:
        raise faults.unreadable(str(path), f"it is {other.what}", hint=other.remedy("ovf"))


def _names_in(folder: Path, mandate: Mandate) -> tuple[str, ...]:
    with suppress(OSError):  # the files in a folder that cannot be listed can be opened all the same
        return tuple(sorted(mandate.names_in(folder, MAX_FILES)))
    return ()
