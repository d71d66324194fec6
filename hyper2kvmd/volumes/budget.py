"""A common limit on the work that reading the structures on a machine's disks may cause."""

from __future__ import annotations

WORK_SECONDS = 900.0
"""Estimated. Five LUKS containers with three keys, each tried on three key slots, take two thirds of it."""
PIECES = 50_000
"""Pieces of logical volumes, counted at each mapping. The root helper accepts 64 for a mount."""


class Exhausted(Exception):
    """Why a structure is not read, as text to follow its name."""


class Budget:
    """The rest of the limit for reading one layout. It counts estimates, not measured time, so readings agree."""

    def __init__(self) -> None:
        self._seconds, self._pieces = WORK_SECONDS, PIECES

    def spend(self, seconds: float) -> None:
        """Raises Exhausted, and deducts nothing, if fewer are left."""
        if seconds > self._seconds:
            raise Exhausted("all encrypted and LVM volumes of this machine together take too long to read")
        self._seconds -= seconds

    def map_pieces(self, number: int) -> None:
        """Raises Exhausted if fewer are left, then at every later call as well."""
        self._pieces -= number
        if self._pieces < 0:
            raise Exhausted("all logical volumes of this machine together consist of too many pieces")
