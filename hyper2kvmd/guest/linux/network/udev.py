"""udev rules that name network cards, such as 70-persistent-net.rules.

A rule names a card, but does not configure one: the old generator kept a line for every card that it ever saw.
Source: udev(7), write_net_rules of udev 147 to 204.
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.linux.network.selector import (
    INTERFACE,
    OUR_DRIVER,
    Choose,
    Selector,
    is_vmware_driver,
    macs_of,
    place_of,
)

LINE = re.compile(r"(?<!\\)\n")
TOKEN = re.compile(r"(?<![A-Z])([A-Z]++)(?:\{([^{}]*)\})?[ \t]*(==|!=|\+=|:=|=)[ \t]*\"([^\"]*)\"")
PLACES = ("KERNELS", "ENV{ID_PATH}", "ENV{ID_NET_NAME_PATH}", "ENV{ID_NET_NAME_SLOT}", "ENV{ID_NET_NAME_ONBOARD}")
ADDRESSES = ("ATTR{address}", "ATTRS{address}", "SYSFS{address}")
DRIVERS = ("DRIVERS", "DRIVER", "ENV{ID_NET_DRIVER}")


def visit(file: str, text: str, choose: Choose) -> str:
    lines = [_visit_line(file, number, line, choose) for number, line in enumerate(LINE.split(text))]
    return "\n".join(line for line in lines if line is not None)


def _visit_line(file: str, number: int, line: str, choose: Choose) -> str | None:
    """The repaired line; None for one that would give a card of ours another name."""
    tokens = list(TOKEN.finditer(line))
    if line.lstrip().startswith("#") or not any(_is_of_cards(token) for token in tokens):
        return line
    names = [token[4] for token in tokens if token[1] == "NAME" and token[3] in ("=", ":=")]
    if not names or not INTERFACE.fullmatch(names[-1]):
        return line
    macs = macs_of([token[4] for token in tokens if key(token) in ADDRESSES and token[3] == "=="])
    place = place_of([token[4] for token in tokens if key(token) in PLACES and token[3] == "=="])
    nic = choose(Selector(file, number, (names[-1],), macs, place=place, claims=False))
    if nic is not None and nic.name != names[-1]:
        return None
    if nic is not None and place and not macs:
        return None  # our own rule uses the MAC address
    pieces, at = [], 0
    for token in tokens:
        value = token[4]
        if key(token) in DRIVERS and is_vmware_driver(value):
            value = OUR_DRIVER
        elif nic is not None and key(token) in ADDRESSES and len(macs) == 1:
            value = nic.mac
        pieces += [line[at : token.start(4)], value]
        at = token.end(4)
    return "".join((*pieces, line[at:]))


def _is_of_cards(token: re.Match[str]) -> bool:
    """Rules of udev before 098 have no subsystem."""
    return (token[1] == "SUBSYSTEM" and token[4] == "net") or (token[1] == "KERNEL" and token[4].startswith("eth"))


def key(token: re.Match[str]) -> str:
    return token[1] if token[2] is None else f"{token[1]}{{{token[2]}}}"
