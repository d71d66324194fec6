"""X configuration that VMware's tools wrote: the driver of a graphics card that is gone.

Looks for `Driver "vmware"` in Device sections and `Driver "vmmouse"` in InputClass sections below /etc/X11. Turns
these lines and the card's BusID into comments: X then selects the driver by the hardware, and does not fail with
"no screens found". An InputDevice section must name a driver and stays: X itself skips one with vmmouse.
Sources: xorg.conf(5), autoConfigDevice and validateInput of the X server.
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.linux.fixes.fix import (
    Case,
    Fix,
    Mended,
    always,
    mend_files,
)

SECTION = re.compile(r"^[ \t]*(?:(end)section|section[ \t]+\"([^\"]*)\")", re.IGNORECASE)
DRIVERS = {
    "device": re.compile(r"^[ \t]*driver\s+\"vmware\"", re.IGNORECASE),
    "inputclass": re.compile(r"^[ \t]*driver\s+\"vmmouse\"", re.IGNORECASE),
}
BUS_ID = re.compile(r"^[ \t]*busid\s", re.IGNORECASE)


def mend(_: Case, text: str, __: str) -> Mended:
    lines = text.split("\n")
    driver: re.Pattern[str] | None = None
    dropped: list[int] = []
    bus_ids: list[int] = []
    vmware = False
    for number, line in enumerate(lines):
        if border := SECTION.match(line):
            dropped += bus_ids if vmware else []
            driver, bus_ids, vmware = DRIVERS.get((border[2] or "").lower()), [], False
        elif driver is not None and driver.match(line):
            dropped.append(number)
            vmware = True
        elif BUS_ID.match(line):
            bus_ids.append(number)
    for number in dropped:
        lines[number] = "#" + lines[number]
    return Mended("\n".join(lines), "VMware's drivers are commented out, X selects its own" if dropped else "")


def apply(case: Case) -> list[str]:
    return mend_files(case, FIX.name, mend, "/etc/X11/xorg.conf", "/etc/X11/xorg.conf.d/*.conf")


FIX = Fix("xorg", required=False, wanted=always, apply=apply)
