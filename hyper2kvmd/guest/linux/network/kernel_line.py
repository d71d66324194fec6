"""Network cards that the initramfs uses: parameters of the kernel line, and settings of initramfs-tools.

The initramfs has no udev rule of the root, so a card that is selected by name gets dracut's `ifname=` beside it.
Addresses are never edited. Sources: dracut.cmdline(7), initramfs-tools(7), initramfs.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hyper2kvmd.guest.linux.network.selector import NIC_NAME, Choose, Selector, lower_name
from hyper2kvmd.mac import normal_mac

PARAMETER = re.compile(r"(?<![\w./-])(ip|vlan|bond|bridge|team|bootdev|fcoe|rd\.route)=([^\s\"'\\]+)")
IFNAME = re.compile(r"(?<![\w./-])ifname=([^\s:\"'\\]{1,64}):([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5})")
BOOTIF = re.compile(r"(?<![\w./-])BOOTIF=((?:[0-9A-Fa-f]{2}[-:])?)([0-9A-Fa-f]{2}(?:[-:][0-9A-Fa-f]{2}){5})")
NETWORK = re.compile(r"(?<![\w./-])(ip|rd\.neednet|netroot|nfsroot|BOOTIF|rd\.route|vlan|bond)=\S|root=(nfs|iscsi)\b")
SETTING = re.compile(r"^[ \t]*(IP|DEVICE)=[\"']?([^\s\"'#]+)", re.MULTILINE)
BRACKETS = re.compile(r"\[[^][]*\]")
IN_BRACKETS = "v.6"
"""Stands for an address whose colons separate no fields."""
ENUMERATED = re.compile(r"eth\d+")
"""The kernel's own names: dracut advises against `ifname=` for them, and the cards keep their order."""
DEVICE_FIELD = 5
"""Of `ip=client:server:gateway:netmask:hostname:device:method`."""


def visit(file: str, text: str, choose: Choose, *, pins: bool = True) -> str:
    """`text` with the cards of its kernel lines chosen by MAC address. `pins`: the initramfs knows `ifname=`."""
    lines = enumerate(text.split("\n"))
    return "\n".join(_visit_line(file, number, line, choose, pins=pins) for number, line in lines)


def visit_settings(file: str, text: str, choose: Choose) -> str:
    """The same for initramfs.conf and conf.d of initramfs-tools, which has no parameter to name cards."""
    for number, match in enumerate(SETTING.finditer(text)):
        for name in _names("bootdev" if match[1] == "DEVICE" else "ip", match[2]):
            choose(Selector(file, number, (name,)))
    return text


def needs_network(text: str) -> bool:
    """Whether a kernel line in `text` asks for a network in the initramfs."""
    return any(NETWORK.search(line) for line in text.split("\n") if not line.lstrip().startswith("#"))


def _visit_line(file: str, number: int, line: str, choose: Choose, *, pins: bool) -> str:
    if line.lstrip().startswith("#"):
        return line
    line = IFNAME.sub(lambda match: _ifname(match, Selector(file, number, *_named(match)), choose), line)
    line = BOOTIF.sub(lambda match: _bootif(match, file, number, choose), line)
    return _pinned(file, number, line, choose, pins=pins)


def _named(match: re.Match[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    mac = normal_mac(match[2])
    return (match[1],), (mac,) if mac else ()


def _ifname(match: re.Match[str], selector: Selector, choose: Choose) -> str:
    nic = choose(selector)
    if nic is None or selector.macs == (nic.mac,):
        return match[0]
    return f"ifname={match[1]}:{nic.mac}"


def _bootif(match: re.Match[str], file: str, number: int, choose: Choose) -> str:
    mac = normal_mac(match[2])
    nic = choose(Selector(file, number, macs=(mac,))) if mac else None
    if nic is None or nic.mac == mac:
        return match[0]
    return f"BOOTIF={match[1]}{nic.mac.replace(':', '-' if '-' in match[0] else ':')}"


def _pinned(file: str, number: int, line: str, choose: Choose, *, pins: bool) -> str:
    known = {match[1] for match in IFNAME.finditer(line)}
    found: list[str] = []
    first: int | None = None
    for match in PARAMETER.finditer(line):
        for name in _names(match[1], match[2]):
            nic = choose(Selector(file, number, (name,)))
            if nic is not None and nic.name == name and name not in known and not ENUMERATED.fullmatch(name):
                known.add(name)
                found.append(f"ifname={name}:{nic.mac} ")
                first = match.start() if first is None else first
    return line if first is None or not pins else line[:first] + "".join(found) + line[first:]


def _names(parameter: str, value: str) -> Iterator[str]:
    """Names of cards in the value of a parameter; IPv6 addresses are in brackets."""
    fields = BRACKETS.sub(IN_BRACKETS, value).split(":")
    if parameter == "ip":
        is_address = not fields[0] or "." in fields[0]
        fields = fields[DEVICE_FIELD : DEVICE_FIELD + 1] if is_address else fields[:1]
    elif parameter == "rd.route":
        fields = fields[2:3]
    for word in (word for field in fields for word in field.split(",")):
        if NIC_NAME.fullmatch(name := lower_name(word)):
            yield name
