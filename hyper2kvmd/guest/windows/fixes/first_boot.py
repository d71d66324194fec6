"""The service of the first boot: what a guest can only do while it runs, such as give new adapters their addresses.

A new network card is a new adapter for Windows, which has no settings and another GUID.
"""

from __future__ import annotations

from hyper2kvmd.guest.windows.first_boot import FIX_NAME, stage_first_boot
from hyper2kvmd.guest.windows.fixes.fix import WindowsCase, WindowsFix
from hyper2kvmd.model.concerns import Concern

POLICY = r"Policies\Microsoft\Windows\PowerShell"
BLOCKING = ("allsigned", "restricted")


def apply(case: WindowsCase) -> list[Concern]:
    stage_first_boot(case.tree, case.hives, case.system, case.first_boot)
    if not case.first_boot.steps or not scripts_are_blocked(case):
        return []
    return [
        Concern(
            code="windows-scripts-blocked",
            message="a group policy of the guest forbids PowerShell scripts: the service of the first boot will fail",
            hint="Lift the policy for the first boot, or do its steps by hand: the report has their commands",
        )
    ]


def scripts_are_blocked(case: WindowsCase) -> bool:
    policy = case.software(POLICY)
    enabled, allowed = (policy.value(name) if policy else None for name in ("EnableScripts", "ExecutionPolicy"))
    if enabled is not None and enabled.number() == 0:
        return True
    return allowed is not None and allowed.text().lower() in BLOCKING


FIX = WindowsFix(FIX_NAME, "a service that runs once, at the first boot", apply=apply)
