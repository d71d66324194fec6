"""Every guest that tests and demo build, by name."""

from __future__ import annotations

from itertools import product

from tests.guests import btrfs_subvolumes, debian11, debian13, dracut, extlinux, lvm_xfs, selinux, several_kernels
from tests.guests.debian12 import Recipe
from tests.guests.guest import Guest

DEBIAN12 = [Recipe(broken=broken, lvm=lvm).guest for broken, lvm in product((True, False), repeat=2)] + [
    Recipe(broken=broken, firmware="uefi").guest for broken in (True, False)
]
BROKEN = (
    btrfs_subvolumes.GUEST,
    debian11.GUEST,
    debian13.GUEST,
    dracut.GUEST,
    extlinux.GUEST,
    lvm_xfs.GUEST,
    selinux.GUEST,
    several_kernels.GUEST,
)
GUESTS: dict[str, Guest] = {guest.name: guest for guest in (*DEBIAN12, *BROKEN)}
