"""What is in a Windows guest, read from its registry: release, edition, architecture, names, clock.

Sources: libguestfs, daemon/inspect_fs_windows.ml (which values say what), and Microsoft's list of builds. The program
files are not read: those of a compressed system (CompactOS) look empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.files.tree import one_line
from hyper2kvmd.guest.windows.hives import Hives, incomplete
from hyper2kvmd.guest.windows.registry import Key
from hyper2kvmd.model.guest import Rtc

SYSTEM, SOFTWARE, DRIVERS = "SYSTEM", "SOFTWARE", "DRIVERS"
CURRENT_VERSION = r"Microsoft\Windows NT\CurrentVersion"
ENVIRONMENT = r"Control\Session Manager\Environment"
HIGHEST_SET = 999
LONGEST_TEXT = 200
"""Characters of one text from the registry in reports."""
WINDOWS_7, WINDOWS_8, WINDOWS_8_1, WINDOWS_10, WINDOWS_11 = 7600, 9200, 9600, 10240, 22000
"""The first builds of releases; servers have those of the clients of their time."""
RELEASES = (
    (26100, "11 24H2", "2025"),
    (22000, "11", "2022 (annual channel)"),
    (20348, "10", "2022"),
    (17763, "10", "2019"),
    (14393, "10", "2016"),
    (10240, "10", "2016"),
    (9600, "8.1", "2012 R2"),
    (9200, "8", "2012"),
    (7600, "7", "2008 R2"),
)
"""The first build of each, and the names of client and server, for a system without a product name."""
PRODUCT_TYPES = {"winnt": False, "servernt": True, "lanmannt": True}
"""Whether it is a server; `LanmanNT` is a domain controller."""
Support = Literal["supported", "best effort"]


@dataclass(frozen=True)
class WindowsSystem:
    """One installation of Windows."""

    build: int
    edition: str
    product_name: str
    server: bool
    architecture: str
    """As the registry has it: `AMD64`, `x86` or `ARM64`."""
    control_set: str
    """The key of the SYSTEM hive with the current configuration: `ControlSet001`."""
    system_root: str
    r"""As the guest names it: `C:\Windows`."""
    hostname: str
    version: str
    rtc: Rtc
    root: str
    """Its directory in the tree: `/Windows`."""

    @property
    def support(self) -> Support:
        old = self.build < (WINDOWS_8_1 if self.server else WINDOWS_10)
        return "best effort" if old or self.architecture != "AMD64" else "supported"

    @property
    def system32(self) -> str:
        return f"{self.root}/System32"

    def shown(self, path: str) -> str:
        """A path of the tree as the guest names it."""
        inside = path.removeprefix(self.root).replace("/", "\\")
        return f"{self.system_root}{inside}" if path.startswith(f"{self.root}/") else path


def inspect_windows(hives: Hives, root: str) -> WindowsSystem:
    """Raises MigrationFailed: `windows-unsupported`, `windows-registry-incomplete`, and as `Hives.read` does."""
    system, software = hives.read(SYSTEM).root, hives.read(SOFTWARE).root
    control_set = _control_set(system)
    control, current = system.subkey(control_set), software.find(CURRENT_VERSION)
    if control is None or current is None:
        raise incomplete(rf"SOFTWARE\{CURRENT_VERSION}" if current is None else rf"SYSTEM\{control_set}")
    build = _text(current, "CurrentBuildNumber") or _text(current, "CurrentBuild")
    if not (build.isascii() and build.isdigit() and len(build) <= 6):
        raise incomplete(rf"SOFTWARE\{CURRENT_VERSION}\CurrentBuildNumber")
    server = _is_server(current, control)
    found = WindowsSystem(
        build=int(build),
        edition=_text(current, "EditionID"),
        product_name=_product_name(_text(current, "ProductName"), int(build), server=server),
        server=server,
        architecture=_architecture(_text(control.find(ENVIRONMENT), "PROCESSOR_ARCHITECTURE")),
        control_set=control_set,
        system_root=_system_root(_text(current, "SystemRoot"), root),
        hostname=_hostname(control),
        version=_text(current, "DisplayVersion") or _text(current, "ReleaseId"),
        rtc=_rtc(control),
        root=root,
    )
    _require_supported(found)
    return found


def _control_set(system: Key) -> str:
    select = system.subkey("Select")
    value = select.value("Current") if select else None
    number = value.number() if value else None
    if number is None or not 0 < number <= HIGHEST_SET:
        raise incomplete(r"SYSTEM\Select\Current")
    return f"ControlSet{number:03d}"


def _text(key: Key | None, name: str) -> str:
    value = key.value(name) if key else None
    return one_line(value.text()[:LONGEST_TEXT]) if value else ""


def _is_server(current: Key, control: Key) -> bool:
    """`InstallationType` also has other words, as `Embedded` for a client."""
    kind = _text(control.find(r"Control\ProductOptions"), "ProductType").lower()
    if kind in PRODUCT_TYPES:
        return PRODUCT_TYPES[kind]
    return _text(current, "InstallationType").lower() not in ("client", "embedded", "")


def _product_name(said: str, build: int, *, server: bool) -> str:
    """Windows 11 still calls itself Windows 10 there."""
    if said and not server and build >= WINDOWS_11:
        return said.replace("Windows 10", "Windows 11")
    if said:
        return said
    name = next((names[server] for first, *names in RELEASES if build >= first), str(build))
    return f"Windows Server {name}" if server else f"Windows {name}"


def _architecture(said: str) -> str:
    known = {"amd64": "AMD64", "x86": "x86", "arm64": "ARM64"}
    return known.get(said.lower(), said)


def _system_root(said: str, root: str) -> str:
    r"""The directory as the guest names it; `C:` if the registry has no drive letter."""
    drive = said[:2] if len(said) > 1 and said[0].isalpha() and said[1] == ":" else "C:"
    return drive.upper() + root.replace("/", "\\")


def _hostname(control: Key) -> str:
    name = _text(control.find(r"Control\ComputerName\ComputerName"), "ComputerName")
    return name or _text(control.find(r"Services\Tcpip\Parameters"), "Hostname")


def _rtc(control: Key) -> Rtc:
    """`RealTimeIsUniversal` is a REG_DWORD or a REG_QWORD."""
    zone = control.find(r"Control\TimeZoneInformation")
    value = zone.value("RealTimeIsUniversal") if zone else None
    return "utc" if value is not None and value.number() else "localtime"


WITHOUT_REPAIR = "set guest: none to convert its disks without a repair"


def _require_supported(found: WindowsSystem) -> None:
    name = f"{found.product_name} (build {found.build}, {found.architecture or 'unknown architecture'})"
    if found.build < WINDOWS_7:
        fact = "releases before Windows 7 and Windows Server 2008 R2 are not supported"
        raise _unsupported(f"{name}: {fact}", f"Upgrade it on the source, or {WITHOUT_REPAIR}")
    if found.architecture not in ("AMD64", "x86"):
        family = "ARM64" if found.architecture == "ARM64" else f"{found.architecture or 'unknown'} processors"
        raise _unsupported(f"{name}: Windows for {family} is not supported", WITHOUT_REPAIR.capitalize())


def _unsupported(fact: str, remedy: str) -> MigrationFailed:
    return MigrationFailed(
        "windows-unsupported",
        fact,
        hint=remedy,
        kind=Kind.PERMANENT,
    )
