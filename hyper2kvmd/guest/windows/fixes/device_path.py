"""DevicePath: where Windows looks for drivers of devices that have none yet.

Without records in the driver database, the packages are only files in a folder. DevicePath has to name it, for devices
that Windows meets before the first boot's service has installed the packages.
"""

from __future__ import annotations

from hyper2kvmd.guest.windows.drivers.store import PLAIN_FOLDER
from hyper2kvmd.guest.windows.fixes.driver_store import store_form
from hyper2kvmd.guest.windows.fixes.fix import WindowsCase, WindowsFix
from hyper2kvmd.guest.windows.inspect import SOFTWARE
from hyper2kvmd.guest.windows.registry import Value
from hyper2kvmd.model.concerns import Concern

PLACE = r"Microsoft\Windows\CurrentVersion"
NAME = "DevicePath"
USUAL = r"%SystemRoot%\inf"
ADDED = "%SystemRoot%\\" + PLAIN_FOLDER.replace("/", "\\")


def apply(case: WindowsCase) -> list[Concern]:
    if not case.drivers.packages or store_form(case) == "full":
        return []
    key = case.software(PLACE)
    value = key.value(NAME) if key else None
    folders = [one for one in (value.text() if value else USUAL).split(";") if one]
    if ADDED.lower() not in (one.lower() for one in folders):
        case.hives.edit(SOFTWARE).set(PLACE, Value.expand_sz(NAME, ";".join([*folders, ADDED])))
    return []


FIX = WindowsFix("device-path", "Windows also looks for drivers in that folder", apply=apply)
