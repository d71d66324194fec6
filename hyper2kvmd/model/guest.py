"""The guest on the disks: what it is and what was repaired."""

from __future__ import annotations

from typing import Literal

from hyper2kvmd.model.frozen import Frozen


class Change(Frozen):
    """One edit of a guest file, made by one fix."""

    fix: str
    path: str
    summary: str
    diff: str = ""
    """Unified diff for text; one line of facts for binary files."""


class Nic(Frozen):
    """A network card of the migrated machine."""

    name: str | None
    """What the guest will call its interface; None when nothing in the guest asks for a name."""
    mac: str


class Guest(Frozen):
    """What the disk holds, what was repaired and what could not be."""

    family: Literal["linux", "windows", "none"] = "linux"
    os_id: str = ""
    os_name: str = ""
    hostname: str = ""
    architecture: str = ""
    kernels: tuple[str, ...] = ()
    boot_loader: str = ""
    root: str = ""
    nics: tuple[Nic, ...] = ()
    """In the order of their places on the bus."""
    fstab_before: str = ""
    fstab_after: str = ""
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
