"""The interface of the guest families: finding a system on the disks, and making it boot on KVM."""

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
    """The open disks of one machine, and the migration of the guest on them."""

    access: Access
    layout: Layout
    migration: Migration
    ctx: Context
    nics: tuple[SourceNic, ...] = ()
    """The source's network cards, as far as they are known."""


class Found(Protocol):
    """A guest that a family has found on the disks."""

    def repair(self) -> Guest:
        """Make it boot on KVM, without running any of its programs; returns its facts, changes and capabilities.

        A file system is mounted writable only if an edit is written to it or its journal is dirty. A dry run writes
        nothing and returns the same. Raises MigrationFailed.
        """
        ...


Family = Callable[[GuestDisks], Found | None]
"""Looks for a guest of one family, read-only; None if there is none. Raises MigrationFailed if there is one that cannot
be repaired."""


def describe(volume: Volume) -> str:
    """A volume as messages show it: its name, content and UUID."""
    return printable(f"{volume.name} ({volume.content}{', UUID ' + volume.uuid if volume.uuid else ''})")
