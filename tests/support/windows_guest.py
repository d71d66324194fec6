"""The folder C: of a Windows guest as plain files, with a registry made by `hives`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.windows.hives import Hives
from hyper2kvmd.guest.windows.inspect import WindowsSystem, inspect_windows
from hyper2kvmd.guest.windows.registry import Hive, Value
from hyper2kvmd.guest.windows.repair import stage_repairs
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import SourceNic
from tests.support.guest_on_disk import (
    FolderAccess,
    guest_disks,
    layout,
    migration,
    partition,
    put,
    tree_of,
)
from tests.support.hives import dword, hive, sz

CONFIG = "/Windows/System32/config"
GUID = "{11111111-2222-3333-4444-555555555555}"
CLASS = "{4D36E972-E325-11CE-BFC1-08002BE10318}"
VMXNET3 = r"PCI\VEN_15AD&DEV_07B0&SUBSYS_07B015AD&REV_01"
Tree = dict[str, object]


def multi(*texts: str) -> tuple[int, bytes]:
    return 7, "".join(f"{text}\0" for text in (*texts, "")).encode("utf-16-le")


def expandable(text: str) -> tuple[int, bytes]:
    return 2, (text + "\0").encode("utf-16-le")


def nested(path: str, leaf: Mapping[str, object]) -> Tree:
    r"""`a\b` with the leaf below it."""
    tree: Tree = dict(leaf)
    for name in reversed(path.split("\\")):
        tree = {name: tree}
    return tree


def merged(*trees: Mapping[str, object]) -> Tree:
    result: Tree = {}
    for tree in trees:
        for name, what in tree.items():
            known = result.get(name)
            result[name] = merged(known, what) if isinstance(known, dict) and isinstance(what, dict) else what
    return result


STATIC: Mapping[str, object] = {
    "EnableDHCP": dword(0),
    "IPAddress": multi("192.0.2.10", "192.0.2.11"),
    "SubnetMask": multi("255.255.255.0", "255.255.255.0"),
    "DefaultGateway": multi("192.0.2.1"),
    "NameServer": sz("192.0.2.53,192.0.2.54"),
    "DhcpIPAddress": sz("0.0.0.0"),  # noqa: S104 - Windows writes it there
}
DHCP: Mapping[str, object] = {"EnableDHCP": dword(1), "DhcpIPAddress": sz("192.0.2.77"), "NameServer": sz("")}


def adapter(
    guid: str = GUID,
    *,
    name: str = "Ethernet0",
    device: str = VMXNET3 + r"\4&1&0&00A8",
    settings: Mapping[str, object] = DHCP,
    permanent: str = "00505601aabb",
    node: Mapping[str, object] | None = None,
) -> Tree:
    """The keys of one adapter below its control set; `permanent` empty: without a record of its MAC address."""
    connection = {"Connection": {"Name": sz(name), "PnpInstanceID": sz(device)}}
    keys = [
        nested(rf"Control\Network\{CLASS}\{guid}", connection),
        nested(rf"Services\Tcpip\Parameters\Interfaces\{guid}", settings),
        nested(rf"Enum\{device}", node or {"DeviceDesc": sz("vmxnet3")}),
    ]
    if permanent:
        recorded = {"PermanentAddress": (3, bytes.fromhex(permanent))}
        keys.append(nested(rf"Control\NetworkSetup2\Interfaces\{guid}\Kernel", recorded))
    return merged(*keys)


def control_set(*more: Mapping[str, object]) -> Tree:
    return merged(
        nested(r"Control\ComputerName\ComputerName", {"ComputerName": sz("WIN-DB01")}),
        nested(r"Control\Session Manager\Environment", {"PROCESSOR_ARCHITECTURE": sz("AMD64")}),
        nested(r"Control\TimeZoneInformation", {"Bias": dword(0)}),
        nested(r"Services\partmgr\Parameters", {"SanPolicy": dword(3)}),
        nested(r"Services\storahci", {"Start": dword(0), "StartOverride": {"0": dword(3)}}),
        *more,
    )


def system_hive(*more: Mapping[str, object], current: int = 1) -> bytes:
    return hive({"Select": {"Current": dword(current)}, f"ControlSet{current:03d}": control_set(*more)})


RELEASE: Mapping[str, object] = {
    "ProductName": sz("Windows Server 2022 Standard"),
    "EditionID": sz("ServerStandard"),
    "InstallationType": sz("Server"),
    "CurrentBuildNumber": sz("20348"),
    "CurrentVersion": sz("6.3"),
    "DisplayVersion": sz("21H2"),
    "SystemRoot": sz(r"C:\Windows"),
}


def software_hive(*more: Mapping[str, object], release: Mapping[str, object] = RELEASE) -> bytes:
    usual = nested(r"Microsoft\Windows\CurrentVersion", {"DevicePath": expandable(r"%SystemRoot%\inf")})
    return hive(merged(nested(r"Microsoft\Windows NT\CurrentVersion", release), usual, *more))


@dataclass
class WindowsFolder:
    """C: as a folder."""

    folder: Path
    system: bytes = field(default_factory=system_hive)
    software: bytes = field(default_factory=software_hive)

    @contextmanager
    def opened(self) -> Iterator[tuple[GuestTree, Hives]]:
        put(self.folder, f"{CONFIG}/SYSTEM", self.system)
        put(self.folder, f"{CONFIG}/SOFTWARE", self.software)
        with tree_of(self.folder) as tree:
            yield tree, Hives(tree, CONFIG)

    def inspected(self) -> WindowsSystem:
        with self.opened() as (_, hives):
            return inspect_windows(hives, "/Windows")


def repair_folder(
    guest: WindowsFolder,
    nics: tuple[SourceNic, ...] = (),
    *,
    esp: Path | None = None,
    virtio_win: Path | None = None,
    secure_boot_wanted: bool = False,
    **keys: object,
) -> Guest:
    """Stage all repairs of the folder, and write them."""
    asked = migration(**keys)
    found = guest_disks(FolderAccess({}), layout(partition(2, "ntfs")), asked, nics)
    disks = replace(found, firmware="uefi" if esp else "bios", virtio_win=virtio_win, secure_boot=secure_boot_wanted)
    with guest.opened() as (_, _hives), tree_of(guest.folder, **({"esp": esp} if esp else {})) as tree:
        result = stage_repairs(disks, tree, "/esp" if esp else None)
        tree.commit()
    guest.system = (guest.folder / f"{CONFIG}/SYSTEM".lstrip("/")).read_bytes()
    guest.software = (guest.folder / f"{CONFIG}/SOFTWARE".lstrip("/")).read_bytes()
    return result


def value_of(guest: WindowsFolder, path: str, name: str) -> Value | None:
    """A value of the current control set, or of the SOFTWARE hive."""
    hive_name, _, below = path.partition("\\")
    data = {"SYSTEM": guest.system, "SOFTWARE": guest.software}[hive_name]
    key = Hive.parse(data).find(rf"ControlSet001\{below}" if hive_name == "SYSTEM" else below)
    return key.value(name) if key else None
