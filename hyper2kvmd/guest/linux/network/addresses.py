"""Static addresses in a guest's configuration, and the interfaces that they are for.

It reads the formats whose selectors `survey` knows. An address that it does not understand is left out, because the
result is only compared with the addresses of the booted guest.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from typing import NamedTuple

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.linux.network import ifcfg, ifupdown, netplan
from hyper2kvmd.guest.linux.network.ini import Ini
from hyper2kvmd.guest.linux.network.selector import INTERFACE

IFCFG = ("/etc/sysconfig/network-scripts/ifcfg-*", "/etc/sysconfig/network/ifcfg-*")
IFCFG_KEY = re.compile(r"IPADDR(_?\w{1,8})?|IPV6ADDR")


class Address(NamedTuple):
    interface: str
    """Empty: the configuration does not name it."""
    ip: str


Reader = Callable[[str, str], Iterator[Address]]


def addresses(tree: GuestTree) -> Iterator[Address]:
    """Raises OSError for a file that cannot be read."""
    places: tuple[tuple[list[str], Reader], ...] = (
        (ifupdown.files(tree), _of_ifupdown),
        ([path for pattern in IFCFG for path in tree.glob(pattern) if ifcfg.is_read(path)], _of_ifcfg),
        (list(tree.glob("/etc/NetworkManager/system-connections/*")), _of_keyfile),
        (list(tree.glob("/etc/netplan/*.yaml")), _of_netplan),
        (list(tree.glob("/etc/systemd/network/*.network")), _of_networkd),
    )
    for paths, reader in places:
        for path in paths:
            if tree.is_file(path):
                with suppress(MigrationFailed):
                    yield from _understood(reader(path, tree.read_text(path)))


def _understood(found: Iterator[Address]) -> Iterator[Address]:
    for address in found:
        with suppress(ValueError):
            ip = str(ip_address(address.ip.split("/")[0].strip("\"'")))
            yield Address(address.interface if INTERFACE.fullmatch(address.interface) else "", ip)


def _of_netplan(_: str, text: str) -> Iterator[Address]:
    return (Address(*found) for found in netplan.addresses(text))


def _of_ifupdown(_: str, text: str) -> Iterator[Address]:
    name = ""
    started: set[str] = set()
    found: list[Address] = []
    for line in text.replace("\\\n", " ").split("\n"):
        words = line.split()
        if words[:1] in (["auto"], ["allow-hotplug"], ["allow-auto"]):
            started.update(words[1:])
        elif words[:1] == ["iface"] and len(words) > 3:
            name = words[1] if words[3] == "static" else ""
        elif words[:1] == ["address"] and len(words) > 1 and name:
            found.append(Address(name, words[1]))
    yield from (Address(one.interface.split(":")[0], one.ip) for one in found if one.interface in started)


def _of_ifcfg(path: str, text: str) -> Iterator[Address]:
    values = {match[2].upper(): match[4].strip() for match in ifcfg.ASSIGNMENT.finditer(text)}
    if values.get("BOOTPROTO", "none").lower().startswith("dhcp"):
        return
    if values.get("ONBOOT", "yes").lower() == "no" or values.get("STARTMODE", "auto").lower() in ("off", "manual"):
        return
    device = values.get("DEVICE") or posixpath.basename(path).removeprefix("ifcfg-")
    for key, value in values.items():
        if IFCFG_KEY.fullmatch(key) and value:
            yield Address(device.split(":")[0], value)


def _of_keyfile(_: str, text: str) -> Iterator[Address]:
    ini = Ini(text)
    if "false" in ini.words("connection", "autoconnect"):
        return
    name = next(iter(ini.words("connection", "interface-name")), "")
    for section in ("ipv4", "ipv6"):
        for number in ("", *map(str, range(1, 17))):
            for setting in ini.all(section, f"address{number}"):
                yield Address(name, setting.value.split(",")[0])


def _of_networkd(_: str, text: str) -> Iterator[Address]:
    ini = Ini(text)
    names = ini.words("Match", "Name")
    name = names[0] if len(names) == 1 else ""
    for section in ("Network", "Address"):
        for setting in ini.all(section, "Address"):
            yield Address(name, setting.value)
