"""systemd-networkd's .network files and udev's .link files: the [Match] section.

Sources: systemd.network(5), systemd.link(5).
"""

from __future__ import annotations

from hyper2kvmd.guest.linux.network.ini import Ini
from hyper2kvmd.guest.linux.network.selector import (
    OUR_DRIVER,
    Choose,
    Selector,
    macs_of,
    our_drivers,
    place_of,
)
from hyper2kvmd.model.guest import Nic

MACS = ("MACAddress", "PermanentMACAddress")


def visit(file: str, text: str, choose: Choose) -> str:
    ini = Ini(text)
    link = file.endswith(".link")
    names = ini.words("Link", "Name") if link else ini.words("Match", "Name")
    paths = ini.all("Match", "Path")
    macs = ini.all("Match", *MACS)
    known = macs_of(ini.words("Match", *MACS))
    nic = choose(Selector(file, 0, tuple(names), known, place=place_of([path.value for path in paths])))
    for driver in ini.all("Match", "Driver"):
        ini.replace(driver, " ".join(our_drivers(driver.value.split())))
    if nic is None:
        return ini.text
    if len(known) == 1 and known[0] != nic.mac:
        for mac in macs:
            ini.replace(mac, nic.mac)
    for path in paths:
        ini.drop(path)
    if paths and not macs and (link or not names):
        for key, value in _conditions_for(nic, link=link):
            if not ini.all("Match", key):
                ini.add("Match", key, value)
    return ini.text


def _conditions_for(nic: Nic, *, link: bool) -> tuple[tuple[str, str], ...]:
    """Conditions that only this card meets.

    The MAC address alone is not enough: the VLANs over a card have it as well, and would use the card's configuration.
    They have another driver. A .link file cannot match the name from a rule."""
    if nic.name and not link:
        return (("Name", nic.name),)
    return ("Driver", OUR_DRIVER), ("MACAddress", nic.mac)
