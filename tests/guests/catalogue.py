"""Every guest that tests and demo build, by name."""

from __future__ import annotations

from tests.guests import (
    btrfs_subvolumes,
    cloud_init,
    debian11,
    debian13,
    dracut,
    extlinux,
    luks,
    lvm_xfs,
    network_stacks,
    ostree,
    raid_lvm,
    selinux,
    several_kernels,
    spanned_uefi,
    systemd_boot,
    two_disks,
    uefi_grub,
)
from tests.guests.debian12 import Recipe

DEBIAN12 = (Recipe(), Recipe(lvm=True), Recipe(broken=False), Recipe(broken=False, firmware="uefi"))
BROKEN = (
    btrfs_subvolumes.GUEST,
    debian11.GUEST,
    debian13.GUEST,
    dracut.GUEST,
    extlinux.GUEST,
    lvm_xfs.GUEST,
    ostree.GUEST,
    selinux.GUEST,
    several_kernels.GUEST,
    two_disks.GUEST,
)
NESTED = (luks.GUEST, raid_lvm.GUEST)
"""Their roots lie in what only a kernel with md and device-mapper reaches."""
BY_UEFI = (*uefi_grub.GUESTS.values(), systemd_boot.SYSTEMD_BOOT, systemd_boot.UNIFIED_KERNEL)
GUESTS = {
    guest.name: guest
    for guest in (
        *(recipe.guest for recipe in DEBIAN12),
        cloud_init.GUEST,
        *(*BROKEN, *NESTED, luks.HEALTHY),
        *(*BY_UEFI, network_stacks.GUEST, spanned_uefi.GUEST),
    )
}
