"""systemd-networkd's .network files and udev's .link files: the [Match] section.

Sources: systemd.network(5), systemd.link(5).
"""

from __future__ import annotations

from hyper2kvmd.guest.network.ini import Ini
from hyper2kvmd.guest.network.selector import Choose, Selector, macs_of, our_drivers

MACS = ("MACAddress", "PermanentMACAddress")


def visit(file: str, text: str, choose: Choose) -> str:
    ini = Ini(text)
    link = file.endswith(".link")
    names = ini.words("Link", "Name") if link else ini.words("Match", "Name")
    paths = ini.all("Match", "Path")
    macs = ini.all("Match", *MACS)
    known = macs_of(ini.words("Match", *MACS))
    nic = choose(Selector(file, 0, tuple(names), known, placed=bool(paths)))
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
        ini.add("Match", "MACAddress", nic.mac)
    return ini.text
