"""How much work the structures on a machine's disks may cause while they are read, all of them together."""

from __future__ import annotations

WORK_SECONDS = 900.0
"""Estimated. Five LUKS containers with three keys, each tried on three key slots, take two thirds of it."""
PIECES = 50_000
"""Of logical volumes, counted each time that one is mapped. The root helper accepts 64 for a mount."""


class Exhausted(Exception):
    """Why a structure is not read, in words that follow its name."""


class Budget:
    """What is left for one reading of a layout. Estimates are spent, not measured time, so two readings agree."""

    def __init__(self) -> None:
        self._seconds, self._pieces = WORK_SECONDS, PIECES

    def spend(self, seconds: float) -> None:
        """Raises Exhausted, and takes nothing, if that is more than is left."""
        if seconds > self._seconds:
            raise Exhausted("all encrypted and LVM volumes of this machine together take too long to read")
        self._seconds -= seconds

    def map_pieces(self, number: int) -> None:
        """Raises Exhausted if that is more than are left; there are none left from then on."""
        self._pieces -= number
        if self._pieces < 0:
            raise Exhausted("all logical volumes of this machine together consist of too many pieces")
