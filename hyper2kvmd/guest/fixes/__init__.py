"""Every repair, in the order in which they are made."""

from __future__ import annotations

from hyper2kvmd.guest.fixes import (
    bls,
    device_map,
    extlinux,
    fstab,
    grub_cfg,
    grub_default,
    grubenv,
    initramfs,
    initramfs_config,
    kernel_cmdline,
    lvm,
    resume,
    vmware_tools,
)
from hyper2kvmd.guest.fixes.fix import Fix

FIXES: tuple[Fix, ...] = (
    fstab.FIX,
    resume.FIX,
    lvm.FIX,
    grub_cfg.FIX,
    grubenv.FIX,
    grub_default.FIX,
    bls.FIX,
    extlinux.FIX,
    kernel_cmdline.FIX,
    device_map.FIX,
    initramfs.FIX,
    initramfs_config.FIX,
    vmware_tools.FIX,
)
