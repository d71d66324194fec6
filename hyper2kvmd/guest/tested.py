"""Which systems the tests of this project boot: docs/reference/guests.md has the whole matrix."""

from __future__ import annotations

from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.guest import Guest

BOOTED = ("Debian GNU/Linux 11", "Debian GNU/Linux 12", "Debian GNU/Linux 13")
"""How the names of these systems begin (`PRETTY_NAME` in os-release)."""


def note_if_not_booted(guest: Guest) -> tuple[Concern, ...]:
    """A note about a system whose boot after a repair was never tried here."""
    if guest.family == "none" or guest.os_name.startswith(BOOTED):
        return ()
    note = Concern(
        code="guest-not-booted",
        message=f"the project's tests do not boot {guest.os_name or 'this system'}",
        hint="Set verify: boot to boot it on a throwaway overlay before it is published",
        level="information",
    )
    return (note,)
