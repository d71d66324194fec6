"""The seam for families of guests: what finds a system on the disks, and makes it boot on KVM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hyper2kvmd.guest.files.tree import printable
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Layout, Volume
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import SourceNic
from hyper2kvmd.progress import Context


@dataclass(frozen=True)
class GuestDisks:
    """The disks of one machine, open, and what is asked of the guest on them."""

    access: Access
    layout: Layout
    migration: Migration
    ctx: Context
    nics: tuple[SourceNic, ...] = ()
    """The source's network cards, as far as they are known."""


class Found(Protocol):
    """A guest that a family has found on the disks."""

    def repair(self) -> Guest:
        """Make it boot on KVM, without running anything of it; say what it is, what changed and what it can drive.

        A file system is mounted writable only if an edit is written to it or its journal is dirty. A dry run writes
        nothing and says the same. Raises MigrationFailed.
        """
        ...


Family = Callable[[GuestDisks], Found | None]
"""Looks for a guest of one family, read-only; None where there is none. Raises MigrationFailed where one is there that
cannot be repaired."""


def describe(volume: Volume) -> str:
    """What messages call a volume: its name, content and UUID."""
    return printable(f"{volume.name} ({volume.content}{', UUID ' + volume.uuid if volume.uuid else ''})")
