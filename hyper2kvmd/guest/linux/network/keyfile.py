"""NetworkManager's connection profiles in /etc/NetworkManager/system-connections.

Source: nm-settings-keyfile(5), nm-settings(5).
"""

from __future__ import annotations

from hyper2kvmd.guest.linux.network.ini import Ini
from hyper2kvmd.guest.linux.network.selector import (
    Choose,
    Selector,
    lower_name,
    macs_of,
    our_drivers,
    place_of,
)

ETHERNET = ("ethernet", "802-3-ethernet")


def visit(file: str, text: str, choose: Choose) -> str:
    ini = Ini(text)
    if not {*ETHERNET} & {*ini.words("connection", "type")}:
        parents = [lower_name(name) for section in ("vlan", "macvlan") for name in ini.words(section, "parent")]
        choose(Selector(file, 0, tuple(parents)))
        return text
    macs = [setting for section in ETHERNET for setting in ini.all(section, "mac-address")]
    known = macs_of([mac.value for mac in macs])
    names = (*ini.words("connection", "interface-name"), *ini.words("match", "interface-name"))
    paths = ini.all("match", "path")
    nic = choose(Selector(file, 0, names, known, place=place_of([path.value for path in paths])))
    for driver in ini.all("match", "driver"):
        words = [word for word in driver.value.split(";") if word]
        ini.replace(driver, ";".join(our_drivers(words)) + ";")
    if nic is None:
        return ini.text
    for mac in macs:
        if macs_of([mac.value]) not in ((), (nic.mac,)):
            ini.replace(mac, nic.mac.upper())
    for path in paths:
        ini.drop(path)
    if paths and not macs and not names:
        ini.add(
            next((section for section in ETHERNET if section in ini.headers), "ethernet"),
            "mac-address",
            nic.mac.upper(),
        )
    return ini.text
