r"""\EFI\Boot\bootx64.efi: the boot loader that a firmware without boot entries starts.

The boot entry of Windows was in VMware's firmware variables and is lost. If the fallback is missing, Windows' own boot
manager is copied there; it finds its settings (BCD) from any folder. Source: UEFI specification 2.10, 3.5.1.1.
"""

from __future__ import annotations

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.windows.fixes.fix import WindowsCase, WindowsFix
from hyper2kvmd.model.concerns import Concern

MANAGER = "EFI/Microsoft/Boot/bootmgfw.efi"
FALLBACK = {"AMD64": "EFI/Boot/bootx64.efi", "x86": "EFI/Boot/bootia32.efi"}


def apply(case: WindowsCase) -> list[Concern]:
    """Raises MigrationFailed (`efi-loader-missing`) when a UEFI firmware would find nothing to start."""
    if case.firmware != "uefi" or case.esp is None:
        return []
    tree, fallback = case.tree, f"{case.esp}/{FALLBACK[case.system.architecture]}"
    manager = f"{case.esp}/{MANAGER}"
    if tree.is_file(fallback):
        return []
    if not tree.is_file(manager):
        raise MigrationFailed(
            "efi-loader-missing",
            f"the EFI system partition has neither {_shown(MANAGER)} nor {_shown(FALLBACK[case.system.architecture])}",
            hint=r"Run `bcdboot C:\Windows` in the guest, then convert again, or set uefi: false if it boots with BIOS",
        )
    tree.write_bytes(fallback, tree.read_bytes(manager), fix=FIX.name, summary=f"a copy of {_shown(MANAGER)}")
    return []


def _shown(path: str) -> str:
    """As Windows writes it."""
    return "\\" + path.replace("/", "\\")


FIX = WindowsFix("efi-fallback", "", apply=apply)
