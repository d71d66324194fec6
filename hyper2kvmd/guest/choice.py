"""Chooses the family of a guest: by its disks, or by the record of an earlier stage."""

from __future__ import annotations

from hyper2kvmd.guest.data_disks import DataDisks, WithoutSystem
from hyper2kvmd.guest.family import Family, Found, GuestDisks
from hyper2kvmd.guest.linux.family import Linux, LockedLinux
from hyper2kvmd.guest.windows.family import Windows
from hyper2kvmd.model.guest import Guest

FAMILIES: tuple[Family, ...] = (Linux(), Windows(), LockedLinux())
"""In the order of the search. A locked container comes last: it may hold the data of any system."""
WITHOUT_SYSTEM = WithoutSystem()


def find_guest(disks: GuestDisks) -> Found:
    """The guest on the disks. Raises MigrationFailed as its family does, or as `WithoutSystem.find` does."""
    if disks.migration.guest == "none":
        return DataDisks(disks)
    for family in FAMILIES:
        if found := family.find(disks):
            return found
    return WITHOUT_SYSTEM.find(disks)


def family_of(guest: Guest) -> Family:
    """The family that has found `guest`."""
    return next((family for family in FAMILIES if family.name == guest.family), WITHOUT_SYSTEM)
