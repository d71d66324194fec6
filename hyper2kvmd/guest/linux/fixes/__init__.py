"""All repairs of a Linux guest, one in each file, and their order.

A repair turns texts into texts. Readers that several repairs share belong to linux/, network configuration to network/.
"""

from __future__ import annotations

from hyper2kvmd.guest.linux.fixes import (
    bls,
    boot_loader,
    caches,
    cloud_init,
    crypttab,
    device_map,
    dhcp_identity,
    efi_fallback,
    extlinux,
    fstab,
    grub_cfg,
    grub_default,
    grub_install,
    grubenv,
    hardware_names,
    initramfs,
    initramfs_config,
    kernel_cmdline,
    kernel_left,
    kernel_root,
    lvm_devices,
    lvm_filter,
    mdadm,
    mount_units,
    nic_conditions,
    nic_names,
    resume,
    unified_kernel,
    vmware_network,
    vmware_tools,
    xorg,
)
from hyper2kvmd.guest.linux.fixes.fix import Fix

FIXES: tuple[Fix, ...] = (
    fstab.FIX,
    crypttab.FIX,
    mount_units.FIX,
    mdadm.FIX,
    lvm_devices.FIX,
    lvm_filter.FIX,
    caches.FIX,
    resume.FIX,
    grub_cfg.FIX,
    grubenv.FIX,
    grub_default.FIX,
    grub_install.FIX,
    bls.FIX,
    extlinux.FIX,
    kernel_cmdline.FIX,
    device_map.FIX,
    boot_loader.FIX,
    initramfs.FIX,
    unified_kernel.FIX,
    kernel_root.FIX,
    kernel_left.FIX,
    initramfs_config.FIX,
    efi_fallback.FIX,
    nic_conditions.FIX,
    nic_names.FIX,
    cloud_init.FIX,
    dhcp_identity.FIX,
    vmware_network.FIX,
    vmware_tools.FIX,
    xorg.FIX,
    hardware_names.FIX,
)

OUTSIDE: tuple[Fix, ...] = (
    grub_cfg.FIX,
    grubenv.FIX,
    bls.FIX,
    extlinux.FIX,
    kernel_left.FIX,
    device_map.FIX,
    efi_fallback.FIX,
)
"""The repairs of files that the boot loader itself reads: a guest with a locked root can get only these."""
