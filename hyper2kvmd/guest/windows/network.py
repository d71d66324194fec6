"""The network adapters of a Windows guest, found in its registry: MAC addresses, names and settings.

A MAC address comes from Windows' record of the adapter, else from the serial number of its PCI Express device, else
from the source's card in the same slot. Sources: Microsoft, "Network interface settings" (Tcpip parameters); hives
of VMware guests.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hyper2kvmd.guest.files.tree import one_line
from hyper2kvmd.guest.nics import MAX_CARDS, nics_as_they_were
from hyper2kvmd.guest.windows.registry import Key, Value
from hyper2kvmd.model.guest import Nic, WindowsAdapter
from hyper2kvmd.model.machine import SourceNic

CLASS = "{4D36E972-E325-11CE-BFC1-08002BE10318}"
"""The device class of network adapters."""
PCI = "PCI\\"
CONNECTIONS = rf"Control\Network\{CLASS}"
SETUP = r"Control\NetworkSetup2\Interfaces"
INTERFACES = {
    "Tcpip": r"Services\Tcpip\Parameters\Interfaces\{guid}",
    "Tcpip6": r"Services\Tcpip6\Parameters\Interfaces\{guid}",
    "NetBT": r"Services\NetBT\Parameters\Interfaces\Tcpip_{guid}",
}
"""The keys with the settings of an adapter, and our names for them."""
KEPT = {
    "Tcpip": (
        *("EnableDHCP", "IPAddress", "SubnetMask", "DefaultGateway", "DefaultGatewayMetric", "NameServer"),
        *("Domain", "InterfaceMetric", "MTU", "RegistrationEnabled", "RegisterAdapterName", "DisableDynamicUpdate"),
    ),
    "Tcpip6": ("NameServer", "Domain"),
    "NetBT": ("NameServerList", "NetbiosOptions"),
}
"""The values that a person sets; all others belong to the lease or to Windows."""
MOST_ADAPTERS = 256
"""Further ones are not read: Windows keeps those that are gone."""
LONGEST_NAME, MOST_ADDRESSES = 200, 64
LARGEST_VALUE = 16 << 10
"""Bytes of a setting that is kept."""
GUID = re.compile(r"\{[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\}")
SERIAL = re.compile(r"([0-9A-F]{6})FFFF([0-9A-F]{6})00", re.IGNORECASE)
"""The instance of a PCI Express card: its MAC address with FFFF in the middle."""
PLACE = re.compile(r"\((\d{1,3}),(\d{1,3}),(\d{1,3})\)$")
"""The end of a location: bus, device and function."""
EXPRESS_SLOTS = {3: 160, 11: 192, 19: 224, 27: 256}
"""VMware's slot numbers by the bus behind each of its PCI Express ports, from the logs of guests."""
BRIDGED_BUS, BRIDGED_SLOTS = 2, 32
"""Devices on the bus behind VMware's PCI bridge have the slot numbers from 32 on."""
ARRIVED = (r"Properties\{83da6326-97a6-4088-9453-a1923f573b29}\0066", "")
"""When a device was last plugged in (DEVPKEY_Device_LastArrivalDate): a FILETIME."""


@dataclass(frozen=True)
class AdapterSetting:
    """A value below one of the `INTERFACES` of an adapter."""

    place: str
    value: Value


@dataclass(frozen=True)
class Adapter:
    """A network adapter that Windows knows. It may be gone from the machine."""

    guid: str
    name: str
    device: str
    """Its place below `Enum`."""
    mac: str | None
    slot: int | None
    arrived: int
    """100 ns since 1601; 0 if unknown."""
    settings: tuple[AdapterSetting, ...]

    def value(self, place: str, name: str) -> Value | None:
        found = (one.value for one in self.settings if one.place == place and one.value.name.lower() == name.lower())
        return next(found, None)

    @property
    def is_static(self) -> bool:
        """Whether it has an IPv4 address of its own."""
        dhcp = self.value("Tcpip", "EnableDHCP")
        return dhcp is not None and dhcp.number() == 0 and bool(self.addresses)

    @property
    def is_configured(self) -> bool:
        """Whether a person has set anything that a new adapter lacks: an address, or name servers."""
        servers = (self.value(place, "NameServer") for place in ("Tcpip", "Tcpip6"))
        return self.is_static or any(one is not None and one.text() for one in servers)

    @property
    def addresses(self) -> tuple[str, ...]:
        pairs = zip(self._texts("IPAddress"), self._texts("SubnetMask"), strict=False)
        return tuple(filter(None, (_with_length(*pair) for pair in pairs)))

    @property
    def gateways(self) -> tuple[str, ...]:
        return tuple(filter(None, map(_address, self._texts("DefaultGateway"))))

    @property
    def name_servers(self) -> tuple[str, ...]:
        found = (self.value(place, "NameServer") for place in ("Tcpip", "Tcpip6"))
        words = (word for one in found if one is not None for word in re.split(r"[,\s]+", one.text()))
        return tuple(filter(None, map(_address, words)))[:MOST_ADDRESSES]

    def fact(self) -> WindowsAdapter:
        return WindowsAdapter(
            name=one_line(self.name),
            guid=self.guid,
            mac=self.mac,
            device=one_line(self.device),
            dhcp=not self.is_static,
            addresses=self.addresses,
            gateways=self.gateways,
            name_servers=self.name_servers,
        )

    def _texts(self, name: str) -> tuple[str, ...]:
        value = self.value("Tcpip", name)
        return value.texts()[:MOST_ADDRESSES] if value else ()


def _with_length(address: str, mask: str) -> str:
    """Empty for what is no address, and for the placeholder 0.0.0.0."""
    try:
        one = ipaddress.IPv4Interface(f"{address.strip()}/{mask.strip()}")
    except ValueError:
        return ""
    return "" if one.ip.is_unspecified else one.with_prefixlen


def _address(text: str) -> str:
    try:
        found = ipaddress.ip_address(text.strip())
    except ValueError:
        return ""
    return "" if found.is_unspecified else str(found)


def find_adapters(control: Key, enum: Key | None, source: Sequence[SourceNic]) -> tuple[Adapter, ...]:
    """The PCI adapters of a control set, those with the same MAC address once: the one that was plugged in last."""
    found = list(_known_adapters(control, enum))
    found = [_by_slot(one, source) for one in found]
    if len(found) == len(source) == 1 and found[0].mac is None:
        found = [replace(found[0], mac=source[0].mac)]
    latest: dict[str, Adapter] = {}
    for one in sorted(found, key=lambda one: one.arrived):
        latest[one.mac or one.guid] = one
    return tuple(sorted(latest.values(), key=lambda one: (one.slot is None, one.slot or 0, one.name)))


def _known_adapters(control: Key, enum: Key | None) -> Iterator[Adapter]:
    for guid, name, device in _connections(control):
        if not device.upper().startswith(PCI):
            continue
        node = enum.find(device) if enum else None
        yield Adapter(
            guid=guid,
            name=name,
            device=device,
            mac=_recorded_mac(control, guid) or _mac_of_instance(device),
            slot=_slot(node),
            arrived=_arrival(node),
            settings=tuple(_settings(control, guid)),
        )


def find_virtual_adapters(control: Key) -> tuple[Adapter, ...]:
    """The adapters that are no devices of PCI and have a static address: NIC teams, virtual switches, VLANs."""
    found = (
        Adapter(guid, name, device, None, None, 0, tuple(_settings(control, guid)))
        for guid, name, device in _connections(control)
        if device and not device.upper().startswith(PCI)
    )
    return tuple(one for one in found if one.is_static and not all(map(_is_automatic, one.addresses)))


def _is_automatic(address: str) -> bool:
    return ipaddress.ip_interface(address).is_link_local


def _connections(control: Key) -> Iterator[tuple[str, str, str]]:
    """The GUID, the name and the device of each adapter."""
    connections = control.find(CONNECTIONS)
    for number, key in enumerate(connections.subkeys() if connections else ()):
        if number >= MOST_ADAPTERS:
            return
        connection = key.subkey("Connection")
        if connection is not None and GUID.fullmatch(key.name):
            yield key.name, _text(connection, "Name"), _text(connection, "PnpInstanceID")


def _text(key: Key | None, name: str) -> str:
    value = key.value(name) if key else None
    return value.text()[:LONGEST_NAME] if value else ""


def _recorded_mac(control: Key, guid: str) -> str | None:
    kernel = control.find(rf"{SETUP}\{guid}\Kernel")
    value = kernel.value("PermanentAddress") if kernel else None
    return value.data.hex(":") if value and len(value.data) == 6 and any(value.data) else None


def _mac_of_instance(device: str) -> str | None:
    match = SERIAL.fullmatch(device.rpartition("\\")[2])
    return bytes.fromhex(match[1] + match[2]).hex(":") if match else None


def _slot(node: Key | None) -> int | None:
    """VMware's slot number: what its firmware says, else derived from the place on the bus."""
    value = node.value("UINumber") if node else None
    if value is not None and value.number():
        return value.number()
    place = PLACE.search(_text(node, "LocationInformation"))
    if place is None:
        return None
    bus, device = int(place[1]), int(place[2])
    return BRIDGED_SLOTS + device if bus == BRIDGED_BUS else EXPRESS_SLOTS.get(bus)


def _arrival(node: Key | None) -> int:
    key = node.find(ARRIVED[0]) if node else None
    value = key.value(ARRIVED[1]) if key else None
    return int.from_bytes(value.data, "little") if value and len(value.data) == 8 else 0


def _settings(control: Key, guid: str) -> Iterator[AdapterSetting]:
    for place, path in INTERFACES.items():
        key = control.find(path.format(guid=guid))
        for name in KEPT[place] if key else ():
            value = key.value(name) if key else None
            if value is not None and len(value.data) <= LARGEST_VALUE:
                yield AdapterSetting(place, value)


def _by_slot(adapter: Adapter, source: Sequence[SourceNic]) -> Adapter:
    if adapter.mac is not None or adapter.slot is None:
        return adapter
    macs = [nic.mac for nic in source if nic.slot == adapter.slot]
    return replace(adapter, mac=macs[0]) if len(macs) == 1 else adapter


def decide_nics(adapters: Sequence[Adapter], source: tuple[SourceNic, ...], vm_name: str) -> tuple[Nic, ...]:
    """The cards of the new machine: the source's if it is known, else those that Windows had last."""
    named = {one.mac: one_line(one.name) for one in adapters if one.mac}
    if source:
        return tuple(nic.with_changes(name=named.get(nic.mac) or None) for nic in nics_as_they_were(source, vm_name))
    if named:
        return tuple(Nic(name=name or None, mac=mac) for mac, name in list(named.items())[:MAX_CARDS])
    return nics_as_they_were((), vm_name)
