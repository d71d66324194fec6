"""Every repair, in the order in which they are made."""

from __future__ import annotations

from hyper2kvmd.guest.fixes import (
    bls,
    device_map,
    efi_fallback,
    extlinux,
    fstab,
    grub_cfg,
    grub_default,
    grubenv,
    initramfs,
    initramfs_config,
    kernel_cmdline,
    nic_conditions,
    nic_names,
    resume,
    unified_kernel,
    vmware_network,
    vmware_tools,
)
from hyper2kvmd.guest.fixes.fix import Fix

FIXES: tuple[Fix, ...] = (
    fstab.FIX,
    resume.FIX,
    grub_cfg.FIX,
    grubenv.FIX,
    grub_default.FIX,
    bls.FIX,
    extlinux.FIX,
    kernel_cmdline.FIX,
    device_map.FIX,
    initramfs.FIX,
    unified_kernel.FIX,
    initramfs_config.FIX,
    efi_fallback.FIX,
    nic_conditions.FIX,
    nic_names.FIX,
    vmware_network.FIX,
    vmware_tools.FIX,
)
