"""Finds the guest on the disks; the only place that chooses a family."""

from __future__ import annotations

from hyper2kvmd.guest import data_disks
from hyper2kvmd.guest.family import Family, Found, GuestDisks
from hyper2kvmd.guest.linux import family as linux
from hyper2kvmd.guest.windows import family as windows

FAMILIES: tuple[Family, ...] = (linux.find, windows.find, linux.find_locked)
"""In the order of the search. A locked container comes last: it may hold the data of any system."""


def find_guest(disks: GuestDisks) -> Found:
    """The guest on the disks. Raises MigrationFailed as its family does, or as `data_disks.without_system` does."""
    for find in FAMILIES:
        if found := find(disks):
            return found
    return data_disks.without_system(disks)
