"""Selectors of network cards in a guest's configuration, in any format."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hyper2kvmd.mac import normal_mac
from hyper2kvmd.model.guest import Nic

VMWARE_DRIVERS = ("vmxnet3", "vmxnet", "e1000e", "e1000", "pcnet32", "vlance")
"""Drivers of the cards that VMware emulates; none of them drives ours."""
OUR_DRIVER = "virtio_net"
NIC_NAME = re.compile(r"eth\d+|en[opsxP][A-Za-z0-9]+|em\d+|p\d+p\d+")
"""Names that kernels, systemd and biosdevname give to Ethernet cards."""
INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
PCI_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
PATTERN = re.compile(r"[*?\[!]")


@dataclass(frozen=True)
class Selector:
    """One part of a configuration that selects cards. Without names, MACs or a place: by driver, or all."""

    file: str
    number: int
    """Counts the selectors of the file."""
    names: tuple[str, ...] = ()
    """Interface names, or patterns of them."""
    macs: tuple[str, ...] = ()
    place: str = ""
    """The card's place on the bus as configured: `0000:0b:00.0`, or another text."""
    claims: bool = True
    """Whether it configures the card; a rule that only names cards may name some that are long gone."""

    @property
    def literal_names(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if INTERFACE.fullmatch(name))

    @property
    def patterns(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if PATTERN.search(name) and not name.startswith("!"))


Choose = Callable[[Selector], Nic | None]
Visit = Callable[[str, str, Choose], str]
"""(file, text, choose) to the text with its selectors changed to the chosen cards."""


def macs_of(words: list[str]) -> tuple[str, ...]:
    return tuple(address for address in map(normal_mac, words) if address is not None)


def is_vmware_driver(pattern: str) -> bool:
    """Whether a driver's name or pattern matches a card of VMware's and not ours."""
    if fnmatchcase(OUR_DRIVER, pattern) or pattern.startswith("!"):
        return False
    return any(fnmatchcase(driver, pattern) for driver in VMWARE_DRIVERS)


def our_drivers(words: list[str]) -> list[str]:
    """A list of drivers with ours in place of VMware's."""
    return list(dict.fromkeys(OUR_DRIVER if is_vmware_driver(word) else word for word in words))


def place_of(words: list[str]) -> str:
    """The only PCI address in conditions on a card's place, else their text; "" for no condition."""
    addresses = set(PCI_ADDRESS.findall(" ".join(words).lower()))
    return addresses.pop() if len(addresses) == 1 else " ".join(words)


def lower_name(name: str) -> str:
    """`eth0` for its VLAN `eth0.100` and its alias `eth0:1`."""
    return re.split("[.:@]", name, maxsplit=1)[0]
