"""The service that runs once, at the first boot of a Windows guest: what it has to do, and its files and keys.

Its script is always the same text (first_boot.ps1). What comes from the guest's registry or from the migration is data
below the key of the service. If nothing is left to do, there is no service.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from hyper2kvmd.guest.files.tree import GuestTree, one_line
from hyper2kvmd.guest.windows.drivers.package import DriverFile
from hyper2kvmd.guest.windows.drivers.store import PLAIN_FOLDER
from hyper2kvmd.guest.windows.hives import Hives
from hyper2kvmd.guest.windows.inspect import SYSTEM, WindowsSystem
from hyper2kvmd.guest.windows.network import Adapter, AdapterSetting
from hyper2kvmd.guest.windows.registry import Value
from hyper2kvmd.mac import normal_mac
from hyper2kvmd.model.asked import Migration, StaticAddress
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.guest import Nic

SERVICE = "hyper2kvm-first-boot"
FIX_NAME = "first-boot"
SCRIPT_PATH, AGENT_PATH = "System32/config/hyper2kvm-first-boot.ps1", "System32/config/hyper2kvm-qemu-ga.msi"
"""In a folder whose files only administrators can read and write: new files get the security of their neighbours."""
RESULT = "hyper2kvm-first-boot.txt"
POWERSHELL = r"%SystemRoot%\System32\WindowsPowerShell\v1.0\powershell.exe"
IMAGE_PATH = (
    r'%SystemRoot%\System32\cmd.exe /c start "" /b '
    rf'"{POWERSHELL}" -NoProfile -NonInteractive -ExecutionPolicy Bypass '
    rf'-File "%SystemRoot%\System32\config\{SERVICE}.ps1"'
)
"""cmd ends at once and is no service, so Windows notes an error; the script goes on."""
OWN_PROCESS, AT_BOOT, IGNORE_ERRORS = 0x10, 2, 0
NETSH = "netsh interface ipv4"
VIRTIO_DEVICE = "PCI\\VEN_1AF4"


@dataclass(frozen=True)
class CardSettings:
    """What a network card of the new machine gets."""

    mac: str
    name: str
    """Of its connection; empty leaves the new one."""
    guid: str
    """Of the adapter that had these settings; empty if they come from the migration."""
    settings: tuple[AdapterSetting, ...]
    addresses: tuple[str, ...] = ()
    """With the lengths of their networks' prefixes. These three are those in `settings`."""
    gateways: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    origin: str = ""
    """The name of the adapter that had them."""

    @property
    def shown(self) -> str:
        """In words, for the report."""
        words = ", ".join(self._words()) or "its settings"
        return f"{words}, as {one_line(self.origin)} had them" if self.origin else words

    def _words(self) -> Iterator[str]:
        parts = (("address", "es", self.addresses), ("gateway", "s", self.gateways), ("name server", "s", self.servers))
        for noun, ending, found in parts:
            if found:
                yield f"the {noun}{ending if len(found) > 1 else ''} {', '.join(found)}"

    def by_hand(self) -> str:
        """How to do it, as imperatives. `getmac /v` shows the name of the connection of each card."""
        steps = [f"{NETSH} set address NAME static {_with_mask(one)}" for one in self.addresses[:1]]
        steps = [f"{step} {gateway}" for step in steps for gateway in (*self.gateways, "")[:1]]
        steps += [f"{NETSH} add address NAME {_with_mask(one)}" for one in self.addresses[1:]]
        steps += [f"netsh interface {_family(one)} add dnsservers NAME {one}" for one in self.servers]
        commands = ", ".join(f"`{step.rstrip()}`" for step in steps)
        first = f"Give the card {self.mac} {self.shown}".replace("`", "'")
        return f"{first}: {commands}. NAME is its connection, as `getmac /v` shows it" if commands else first


@dataclass(frozen=True)
class FirstBoot:
    """What is left to do in the running guest; nothing means that there is no service."""

    cards: tuple[CardSettings, ...] = ()
    installs_drivers: bool = False
    removes_tools: bool = False
    agent: DriverFile | None = None
    """The installer of QEMU's guest agent."""

    @property
    def steps(self) -> tuple[str, ...]:
        """In their order: an agent is installed last, because its device needs a driver."""
        wanted = {
            "drivers": self.installs_drivers,
            "network": bool(self.cards),
            "tools": self.removes_tools,
            "agent": self.agent is not None,
        }
        return tuple(step for step, is_wanted in wanted.items() if is_wanted)

    def described(self, system: WindowsSystem) -> tuple[str, ...]:
        """For the report; empty if there is no service."""
        if not self.steps:
            return ()
        lines = [f"the card {card.mac} gets {card.shown}" for card in self.cards]
        lines += ["the driver packages are installed with pnputil"] if self.installs_drivers else []
        lines += ["VMware Tools are uninstalled"] if self.removes_tools else []
        lines += ["QEMU's guest agent is installed"] if self.agent is not None else []
        end = rf"the result is in {system.system_root}\{RESULT}; the service {SERVICE} and its files are removed"
        return (*lines, end)

    def in_short(self) -> Iterator[str]:
        """The steps as imperatives, without commands."""
        yield from (f"give the card {card.mac} {card.shown}" for card in self.cards)
        yield from ("install the driver packages",) if self.installs_drivers else ()
        yield from ("uninstall VMware Tools",) if self.removes_tools else ()
        yield from ("install QEMU's guest agent",) if self.agent is not None else ()

    def by_hand(self, system: WindowsSystem) -> tuple[str, ...]:
        """The same steps for a person, as imperatives with their commands."""
        steps = [card.by_hand() for card in self.cards]
        if self.installs_drivers:
            place = rf"{system.system_root}\{PLAIN_FOLDER.replace('/', chr(92))}\*.inf"
            steps.append(f"Install the driver packages: `pnputil -i -a {place}`")
        if self.removes_tools:
            steps.append("Uninstall VMware Tools in the Control Panel: `appwiz.cpl`")
        if self.agent is not None:
            command = f"`msiexec /i {self.agent.name}`"
            steps.append(f"Install QEMU's guest agent from the folder guest-agent of virtio-win: {command}")
        return tuple(steps)


def card_settings(adapters: Sequence[Adapter], nics: Sequence[Nic], migration: Migration) -> tuple[CardSettings, ...]:
    """The cards whose settings Windows would not have after the first boot."""
    macs = [nic.mac for nic in nics]
    by_mac = {one.mac: one for one in adapters if one.mac}
    if migration.win_net == "dhcp":
        return ()
    if migration.win_net == "keep":
        return tuple(_kept(one) for one in adapters if one.mac in macs and needs_first_boot(one))
    asked = {normal_mac(one.mac): one for one in migration.win_net}
    return tuple(_asked(mac, asked[mac], by_mac.get(mac)) for mac in macs if mac in asked)


def needs_first_boot(adapter: Adapter) -> bool:
    """An adapter for virtio has its settings already: it stays in a machine that comes from KVM."""
    return adapter.is_configured and not adapter.device.upper().startswith(VIRTIO_DEVICE)


def _kept(adapter: Adapter) -> CardSettings:
    return CardSettings(
        mac=adapter.mac or "",
        name=adapter.name,
        guid=adapter.guid,
        settings=adapter.settings,
        addresses=adapter.addresses if adapter.is_static else (),
        gateways=adapter.gateways,
        servers=adapter.name_servers,
        origin=adapter.name,
    )


def _asked(mac: str, asked: StaticAddress, known: Adapter | None) -> CardSettings:
    interface = ipaddress.IPv4Interface(asked.address)
    values = [
        Value.dword("EnableDHCP", 0),
        Value.multi_sz("IPAddress", [str(interface.ip)]),
        Value.multi_sz("SubnetMask", [str(interface.netmask)]),
        Value.multi_sz("DefaultGateway", [asked.gateway] if asked.gateway else []),
        Value.sz("NameServer", ",".join(asked.dns)),
    ]
    return CardSettings(
        mac=mac,
        name=known.name if known else "",
        guid=known.guid if known else "",
        settings=tuple(AdapterSetting("Tcpip", value) for value in values),
        addresses=(asked.address,),
        gateways=(asked.gateway,) if asked.gateway else (),
        servers=asked.dns,
    )


def _with_mask(address: str) -> str:
    interface = ipaddress.IPv4Interface(address)
    return f"{interface.ip} {interface.netmask}"


def _family(address: str) -> str:
    return f"ipv{ipaddress.ip_address(address).version}"


def not_done(first_boot: FirstBoot) -> Concern:
    """What a person has to do with `win_first_boot: never`."""
    return Concern(
        code="windows-first-boot-off",
        message="win_first_boot is never, so no service does what is left to do at the first boot",
        hint=f"Do it by hand: {'; '.join(first_boot.in_short())}. Or set win_first_boot: auto",
    )


def stage_first_boot(tree: GuestTree, hives: Hives, system: WindowsSystem, first_boot: FirstBoot) -> None:
    """Also removes the service of an earlier migration that Windows never ran, with addresses of another time.

    Raises MigrationFailed as `GuestTree.write_bytes` and the editor of the registry do.
    """
    service = rf"{system.control_set}\Services\{SERVICE}"
    if hives.read(SYSTEM).find(service) is not None:
        hives.edit(SYSTEM).delete_key(service)
    if not first_boot.steps:
        return
    script = resources.files(__name__.rpartition(".")[0]).joinpath("first_boot.ps1").read_bytes()
    _write(tree, f"{system.root}/{SCRIPT_PATH}", script, "the script of the first boot")
    if first_boot.agent is not None:
        _write(tree, f"{system.root}/{AGENT_PATH}", first_boot.agent.data, "the installer of QEMU's guest agent")
    editor = hives.edit(SYSTEM)
    for place, value in _values(first_boot):
        editor.set(rf"{service}\{place}" if place else service, value)


def _write(tree: GuestTree, path: str, data: bytes, summary: str) -> None:
    if not tree.has_content(path, data):
        tree.write_bytes(path, data, fix=FIX_NAME, summary=summary)


def _values(first_boot: FirstBoot) -> Iterator[tuple[str, Value]]:
    """Keys below that of the service, each with a value."""
    yield "", Value.dword("Type", OWN_PROCESS)
    yield "", Value.dword("Start", AT_BOOT)
    yield "", Value.dword("ErrorControl", IGNORE_ERRORS)
    yield "", Value.expand_sz("ImagePath", IMAGE_PATH)
    yield "", Value.sz("DisplayName", "First boot on KVM (hyper2kvm)")
    yield "", Value.sz("ObjectName", "LocalSystem")
    yield "Parameters", Value.multi_sz("Steps", first_boot.steps)
    for card in first_boot.cards:
        place = rf"Parameters\Network\{card.mac.replace(':', '')}"
        yield place, Value.sz("Mac", card.mac.upper())
        yield place, Value.sz("Guid", card.guid)
        yield place, Value.sz("Name", card.name)
        for setting in card.settings:
            yield rf"{place}\{setting.place}", setting.value
