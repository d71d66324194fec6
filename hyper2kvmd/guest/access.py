"""How the service user reaches a guest's file systems: an interface, and the helper behind it.

Placeholder written with the skeleton: the boundary's owner replaces this file.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from hyper2kvmd.model import Image, Volume


class Access(Protocol):
    """An opened image whose volumes can be mounted, one or several at a time."""

    def mount(self, volume: Volume, *, read_only: bool = False) -> AbstractContextManager[int]:
        """A detached mount of `volume` as a directory fd, in which the service user acts as the guest's root.

        Raises MigrationFailed (`mount-failed`, `mount-unsupported`).
        """
        ...


def open_image(image: Image, helper: tuple[str, ...], folder: Path) -> AbstractContextManager[Access]:
    """Export `image` (raw: the file itself; qcow2: a confined exporter in `folder`) for read and write."""
    raise NotImplementedError


def check_helper(helper: tuple[str, ...], volumes: tuple[Volume, ...]) -> None:
    """Raise BrokenInstallation (`helper-unreachable`, with the remedy) when repair could not work on this host."""
    raise NotImplementedError
