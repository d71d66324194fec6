"""Settings of a Windows guest for its boot proof, only on a throwaway overlay.

A blue screen stays, so it is no restart. The power button shuts Windows down, also before anybody has logged in, and
without a fast startup. The boot configuration (BCD) stays as it is: an edit of it, for a console on the serial port
(EMS), could itself prevent the boot that is to be proven.

Sources: Microsoft's documentation of CrashControl, of the policy "Select the Power button action" (Power.admx), and of
"Shutdown: Allow system to be shut down without having to log on".
"""

from __future__ import annotations

from hyper2kvmd.guest.windows.hives import Hives
from hyper2kvmd.guest.windows.inspect import SOFTWARE, SYSTEM
from hyper2kvmd.guest.windows.registry import Value

CRASH, FAST_STARTUP = r"Control\CrashControl", r"Control\Session Manager\Power"
POWER_BUTTON = r"Policies\Microsoft\Power\PowerSettings\7648EFA3-DD9C-4E3E-B566-50F929386280"
LOGON = r"Microsoft\Windows\CurrentVersion\Policies\System"
SHUT_DOWN = 3
"""Of the actions of the power button."""
CHANGED = "AutoReboot, HiberbootEnabled, the action of the power button, ShutdownWithoutLogon"


def prepare_settings(hives: Hives, control_set: str) -> None:
    """Edit the hives; `stage` is left to the caller. Raises MigrationFailed as `Hives.edit` does."""
    system, software = hives.edit(SYSTEM), hives.edit(SOFTWARE)
    system.set(rf"{control_set}\{CRASH}", Value.dword("AutoReboot", 0))
    system.set(rf"{control_set}\{FAST_STARTUP}", Value.dword("HiberbootEnabled", 0))
    for power in ("ACSettingIndex", "DCSettingIndex"):
        software.set(POWER_BUTTON, Value.dword(power, SHUT_DOWN))
    software.set(LOGON, Value.dword("ShutdownWithoutLogon", 1))
