"""All repairs of a Windows guest, one in each file, and their order.

A repair edits files and hives in memory; all are written together. What several repairs read belongs to windows/.
"""

from __future__ import annotations

from hyper2kvmd.guest.windows.fixes import (
    device_path,
    driver_store,
    efi_fallback,
    first_boot,
    san_policy,
    start_override,
    vmware_services,
)
from hyper2kvmd.guest.windows.fixes.fix import WindowsFix

FIXES: tuple[WindowsFix, ...] = (
    driver_store.FIX,
    start_override.FIX,
    san_policy.FIX,
    device_path.FIX,
    vmware_services.FIX,
    efi_fallback.FIX,
    first_boot.FIX,
)
