"""Network adapters as a Windows under VMware knows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NET_CLASS = "{4D36E972-E325-11CE-BFC1-08002BE10318}"


@dataclass(frozen=True)
class Address:
    address: str
    mask: str
    gateway: str = ""


@dataclass(frozen=True)
class Adapter:
    guid: str
    mac: str
    """Twelve lower-case hexadecimal digits."""
    name: str
    """Of its connection."""
    model: Literal["e1000e", "vmxnet3"] = "vmxnet3"
    address: Address | None = None
    """None for DHCP."""
    servers: tuple[str, ...] = ()
    """Of DNS."""
    domain: str = ""

    @property
    def device(self) -> str:
        """Its key below Enum."""
        return f"PCI\\{HARDWARE[self.model]}\\{self.instance}"

    @property
    def instance(self) -> str:
        """A PCI Express function is named by its serial number, an EUI-64 that is made of the MAC address."""
        mac = self.mac.upper()
        return f"{mac[:6]}FFFF{mac[6:]}00"


HARDWARE = {"e1000e": "VEN_8086&DEV_10D3&SUBSYS_07D015AD&REV_00", "vmxnet3": "VEN_15AD&DEV_07B0&SUBSYS_07B015AD&REV_01"}
STATIC = Adapter(
    "{5B0F2C14-8A61-4D0B-9C35-0F6A2D1E7B11}",
    "005056a1b2c3",
    "Production",
    address=Address("192.0.2.21", "255.255.255.0", "192.0.2.1"),
    servers=("192.0.2.53", "198.51.100.53"),
    domain="example.test",
)
DHCP = Adapter("{7C1D3E25-9B72-4E1C-8D46-1A7B3E2F8C22}", "000c29f3ffde", "Ethernet1", model="e1000e")
