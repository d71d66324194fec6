"""Machines of VMware in a folder: a .vmx, small disks, and a .vmsd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import Failure
from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.machines.reader import read_machine
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import LocalFile
from hyper2kvmd.model.machine import Machine
from tests.support.vmdk_images import descriptor

DISK = descriptor("monolithicFlat", "RW 1 ZERO")
WHOLE = {"config.version": "8", "virtualHW.version": "19"}
"""What makes VMware accept a .vmx."""
QUIET = {**WHOLE, "floppy0.present": "FALSE"}
ONE_DISK = {"scsi0.present": "TRUE", "scsi0:0.present": "TRUE", "scsi0:0.fileName": "web01.vmdk"}


def text(settings: Mapping[str, str]) -> str:
    return "".join(f'{key} = "{value}"\n' for key, value in settings.items())


def put(folder: Path, settings: Mapping[str, str], disks: Sequence[str] = ("web01.vmdk",)) -> Path:
    """A .vmx with these settings, and the disks."""
    folder.mkdir(exist_ok=True)
    for name in disks:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(DISK)
    vmx = folder / "web01.vmx"
    vmx.write_text(text(settings))
    return vmx


def read(
    vmx: Path, *, datastores: Mapping[str, Path] | None = None, snapshot: str | None = None, mandate: Mandate = ANYONE
) -> Machine:
    asked = Migration(vmx=vmx, vm_name="web01", datastore_map=datastores or {}, snapshot=snapshot)
    with Sources(vmx.parent, mandate) as sources:
        return read_machine(asked, sources)


def names(machine: Machine) -> list[str]:
    """The file names of the disks."""
    return [disk.at.path.name for disk in machine.disks if isinstance(disk.at, LocalFile)]


def codes(machine: Machine) -> list[str]:
    return [concern.code for concern in machine.concerns]


def failure_of(vmx: Path, **asked: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        read(vmx, **asked)
    assert str(caught.value).isprintable()
    return caught.value
