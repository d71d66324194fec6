"""StartOverride: Windows starts disk drivers that the machine did not need at its last boots no longer by itself.

Looks for the key `StartOverride` of the drivers for virtio and for the controllers of KVM's machines, and removes it.
The start type of the in-box SATA driver is set to boot: Windows 7 leaves it at "on demand" on other controllers.
"""

from __future__ import annotations

from hyper2kvmd.guest.windows.fixes.fix import WindowsCase, WindowsFix
from hyper2kvmd.guest.windows.inspect import SYSTEM
from hyper2kvmd.guest.windows.registry import Value
from hyper2kvmd.model.concerns import Concern

OVERRIDDEN = ("viostor", "vioscsi", "storahci", "stornvme", "atapi", "intelide", "pciide")
SATA = ("storahci", "msahci")
"""The in-box drivers of AHCI controllers: since Windows 8, and in Windows 7."""
BOOT_START = 0


def apply(case: WindowsCase) -> list[Concern]:
    editor, services = case.hives.edit(SYSTEM), rf"{case.system.control_set}\Services"
    for name in OVERRIDDEN:
        key = case.service(name)
        if key is not None and key.subkey("StartOverride"):
            editor.delete_key(rf"{services}\{name}\StartOverride")
    for name in SATA:
        if case.service(name) is not None:
            editor.set(rf"{services}\{name}", Value.dword("Start", BOOT_START))
    return []


FIX = WindowsFix("start-override", "disk drivers start at boot", apply=apply)
