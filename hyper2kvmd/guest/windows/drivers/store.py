"""The records of a driver package in Windows: files and registry values, as an installation leaves them.

Sources: registry exports of installed virtio-win (lxc/distrobuilder, `windows/driver_*.go`), SetupAPI.h for the scores
of signers, and virt-v2v (`mlcustomize/inject_virtio_win.ml`) for the minimal form. Pure functions: the same package and
place always give the same records, so a second repair changes nothing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

from hyper2kvmd.guest.windows.drivers.inf import (
    DRIVERS,
    FOLDERS,
    REG_BINARY,
    REG_DWORD,
    REG_EXPAND_SZ,
    REG_MULTI_SZ,
    REG_NONE,
    REG_SZ,
    STORE,
    CopiedFile,
    Installation,
    RegistryLine,
    encoded,
)
from hyper2kvmd.guest.windows.drivers.package import DriverPackage
from hyper2kvmd.guest.windows.drivers.signature import SignerKind

Hive = Literal["SYSTEM", "SOFTWARE", "DRIVERS"]
Form = Literal["full", "minimal", "critical"]
"""`full`: as Windows 8 and later record an installed package. `minimal`: what virt-v2v writes for the disk driver.
`critical`: the CriticalDeviceDatabase of builds before DATABASE_FROM."""
REG_QWORD = 11
REPOSITORY = "System32/DriverStore/FileRepository"
CATALOGS = "System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}"
PLAIN_FOLDER = "Drivers/VirtIO"
"""Where packages without a record are for the first boot; the DevicePath has to name it."""
EARLY_CLASSES = ("scsiadapter", "hdc", "system")
"""Classes of devices that start before their installation: Windows has all that this needs in the SYSTEM hive. It has
other packages in the DRIVERS hive."""
PROCESSORS = {"x86": 0, "amd64": 9, "arm64": 12}
FILE_TIME_START = date(1601, 1, 1)
TICKS_A_DAY = 24 * 3600 * 10_000_000
FIRST_RANK, LATER_RANK = bytes((1, 0xFF, 0, 0)), bytes((2, 0xFF, 0, 0))
"""In DeviceIds, for the first hardware id of a model, and for its others."""
STATUS = 0x12
SCORES: Mapping[SignerKind | None, int] = {
    "certified": 0x0D000005,
    "attested": 0x0D000005,
    "vendor": 0x0F000000,
    "test": 0x0F000000,
    None: 0x80000000,
}
"""SIGNERSCORE_WHQL, _AUTHENTICODE and _UNSIGNED of SetupAPI.h."""
SCOPE, SCOPE_DEVICE, SCOPE_SERVICE, SCOPE_WDF = 1, 2, 4, 0x100
LOCKED, NOT_LOCKED = 4, 5
"""Class of a protected file: of a package with PnpLockdown=1, and of another one."""
OEM_NAME = re.compile(r"oem(\d{1,5})\.inf", re.IGNORECASE)
LARGEST_MAP = 100_000 // 8
"""Bytes for the numbers of all names that OEM_NAME matches."""
MINIMAL_HASH = "0" * 16


@dataclass(frozen=True)
class RegistryValue:
    """A value to set. `path` is below the root of the hive, with backslashes; an empty name is the default value."""

    hive: Hive
    path: str
    name: str
    type: int
    data: bytes


@dataclass(frozen=True)
class RegistryKey:
    """A key to create if it is missing; it may have no values."""

    hive: Hive
    path: str


@dataclass(frozen=True)
class SystemFile:
    """`path` is below the system root (`C:/Windows`), with slashes."""

    path: str
    data: bytes


@dataclass(frozen=True)
class StorePlace:
    """What the records depend on besides the package."""

    inf_name: str
    """The name of the INF in the folder INF, such as `oem7.inf`: see `published_name`."""
    control_set: str = "ControlSet001"
    form: Form = "full"
    has_drivers_hive: bool = True


@dataclass(frozen=True)
class Records:
    files: tuple[SystemFile, ...]
    keys: tuple[RegistryKey, ...]
    values: tuple[RegistryValue, ...]


def records_of(package: DriverPackage, place: StorePlace) -> Records:
    """Everything to write for a package. Values of `OemInfMap` are for all packages together: see `oem_map`."""
    match place.form:
        case "full" if is_early(package):
            values = [*_database(package, place), *_services(package, place), *_locked(package, place)]
            files = (*_store_files(package, place), *_installed_files(package))
            return Records(files, tuple(_keys(package, place)), tuple(values))
        case "full":
            return Records(tuple(_store_files(package, place)), (), tuple(_database(package, place)))
        case "minimal":
            values = [*_minimal(package), *_services(package, place)] if package.service.is_boot_start else []
        case "critical":
            values = [*_critical(package, place), *_services(package, place)] if package.service.is_boot_start else []
    started = _started_files(package) if package.service.is_boot_start else ()
    return Records((*_plain_files(package), *started), (), tuple(values))


def published_name(
    package: DriverPackage, infs: Iterable[str], active: Mapping[str, str], mapped: bytes | None = None
) -> str:
    """The name for the INF: that of an earlier repair, else `oemN.inf` with the lowest free number.

    `infs` are the names in the folder INF, `active` has the folder in the driver store for each name in
    DriverInfFiles (its value `Active`), and `mapped` is `OemInfMap` (see `oem_map`).
    """
    for name, folder in active.items():
        if folder.lower() == package.store_folder and OEM_NAME.fullmatch(name):
            return name.lower()
    taken = {*numbers_of([*infs, *active]), *_numbers_in(mapped or b"")}
    return f"oem{next(number for number in range(len(taken) + 1) if number not in taken)}.inf"


def numbers_of(infs: Iterable[str]) -> tuple[int, ...]:
    """The numbers of the names of the form `oemN.inf`."""
    return tuple(int(found[1]) for found in map(OEM_NAME.fullmatch, infs) if found)


def _numbers_in(mapped: bytes) -> Iterator[int]:
    """The numbers that `oem_map` has noted."""
    bits = mapped[:LARGEST_MAP]
    return (number for number in range(8 * len(bits)) if bits[number // 8] & 0x80 >> number % 8)


def oem_map(before: bytes | None, numbers: Iterable[int]) -> bytes:
    """`DriverDatabase\\OemInfMap` with these numbers of `oemN.inf` as well: one bit each, the highest first.

    It is in the SYSTEM hive, also for packages in the DRIVERS hive.
    """
    bits = bytearray(before or b"")
    for number in numbers:
        bits.extend(bytes(max(0, number // 8 + 1 - len(bits))))
        bits[number // 8] |= 0x80 >> number % 8
    return bytes(bits)


def version_value(package: DriverPackage) -> bytes:
    """The value `Version` of a package, 48 bytes: architecture, class, date and version of the driver."""
    first, second, third, fourth = package.inf.version
    head = struct.pack("<HHI", 0xFF00, PROCESSORS[package.target.architecture], 0)
    numbers = struct.pack("<4H", fourth, third, second, first)
    return head + package.class_guid.bytes_le + _file_time(package) + numbers + bytes(8)


def is_early(package: DriverPackage) -> bool:
    """Whether its devices start before their installation. Others are installed when Windows finds them."""
    return package.inf.class_name.lower() in EARLY_CLASSES or package.service.is_boot_start


def database_hive(package: DriverPackage, place: StorePlace) -> Hive:
    return "SYSTEM" if is_early(package) or not place.has_drivers_hive else "DRIVERS"


def _file_time(package: DriverPackage) -> bytes:
    return struct.pack("<Q", (package.date - FILE_TIME_START).days * TICKS_A_DAY)


# ---------------------------------------------------------------- files


def _store_files(package: DriverPackage, place: StorePlace) -> Iterator[SystemFile]:
    for file in package.files:
        yield SystemFile(f"{REPOSITORY}/{package.store_folder}/{file.name}", file.data)
    yield SystemFile(f"INF/{place.inf_name}", package.inf_file.data)
    if package.catalog_file is not None:
        yield SystemFile(f"{CATALOGS}/{place.inf_name.removesuffix('.inf')}.cat", package.catalog_file.data)


def _installed_files(package: DriverPackage) -> tuple[SystemFile, ...]:
    """Those that the devices use outside of the driver store."""
    found = {}
    for copied in _copied(package):
        file = package.file(copied.source)
        if file is not None:
            found[_path(copied)] = SystemFile(_path(copied), file.data)
    return tuple(found.values())


def _started_files(package: DriverPackage) -> tuple[SystemFile, ...]:
    """Those of a driver without a record in the store: its program is copied also if the INF leaves it there."""
    program = _path(_outside_store(package.service.binary))
    others = (file for file in _installed_files(package) if file.path.lower() != program.lower())
    return (*others, SystemFile(program, package.driver.data))


def _outside_store(file: CopiedFile) -> CopiedFile:
    return replace(file, folder=DRIVERS) if file.folder == STORE else file


def _copied(package: DriverPackage) -> Iterator[CopiedFile]:
    for installation in package.installations:
        yield from (file for file in installation.files if file.folder in FOLDERS and not file.subfolder)


def _path(file: CopiedFile) -> str:
    return f"{FOLDERS[file.folder]}/{file.name}".lstrip("/")


def _plain_files(package: DriverPackage) -> Iterator[SystemFile]:
    for file in package.files:
        yield SystemFile(f"{PLAIN_FOLDER}/{file.name}", file.data)


# ---------------------------------------------------------------- services


def _services(package: DriverPackage, place: StorePlace) -> Iterator[RegistryValue]:
    """The service of the driver, and its source in the event log."""
    service = package.service
    key = f"{place.control_set}\\Services\\{service.name}"
    yield _number("SYSTEM", key, "Type", service.type)
    yield _number("SYSTEM", key, "Start", service.start)
    yield _number("SYSTEM", key, "ErrorControl", service.error_control)
    yield _expandable("SYSTEM", key, "ImagePath", _image_path(package, place))
    if service.group:
        yield _text("SYSTEM", key, "Group", service.group)
    if service.display_name:
        yield _text("SYSTEM", key, "DisplayName", _indirect(package, place, service.display_name))
    if place.form == "full":
        yield _texts("SYSTEM", key, "Owners", [place.inf_name])
    yield from _lines("SYSTEM", key, service.registry)
    if service.wdf_version:
        yield _text("SYSTEM", f"{key}\\Parameters\\Wdf", "KmdfLibraryVersion", service.wdf_version)
    yield from _lines("SYSTEM", f"{place.control_set}\\Services\\EventLog\\System\\{service.name}", service.events)


def _image_path(package: DriverPackage, place: StorePlace) -> str:
    """The boot loader knows no `\\SystemRoot`."""
    binary = package.service.binary if place.form == "full" else _outside_store(package.service.binary)
    path = f"{REPOSITORY}/{package.store_folder}/{binary.name}" if binary.folder == STORE else _path(binary)
    below = path.replace("/", "\\")
    return below if package.service.is_boot_start else f"\\SystemRoot\\{below}"


def _indirect(package: DriverPackage, place: StorePlace, text: str) -> str:
    """A text that Windows looks up in the INF, with its current value; without a record, the value alone."""
    value = package.inf.text.expanded(text)
    return f"@{place.inf_name},{text};{value}" if place.form == "full" and text != value else value


# ---------------------------------------------------------------- DriverDatabase


def _database(package: DriverPackage, place: StorePlace) -> Iterator[RegistryValue]:
    hive = database_hive(package, place)
    yield from _device_ids(package, place, hive)
    folder = package.store_folder
    key = f"DriverDatabase\\DriverInfFiles\\{place.inf_name}"
    yield _texts(hive, key, "", [folder])
    yield _text(hive, key, "Active", folder)
    if is_early(package):
        yield _texts(hive, key, "Configurations", [one.section for one in package.installations])
    yield from _package_values(package, place, hive)
    if is_early(package):
        yield from _configurations(package, hive)
        yield from _descriptors(package, hive)


def _device_ids(package: DriverPackage, place: StorePlace, hive: Hive) -> Iterator[RegistryValue]:
    root = "DriverDatabase\\DeviceIds"
    yield RegistryValue(hive, f"{root}\\{{{package.class_guid}}}", place.inf_name, REG_NONE, b"")
    ranks: dict[str, bytes] = {}
    for device in package.devices:
        for index, one in enumerate(device.model.ids):
            ranks[one] = min(ranks.get(one, LATER_RANK), LATER_RANK if index else FIRST_RANK)
    for one, rank in ranks.items():
        yield RegistryValue(hive, f"{root}\\{one}", place.inf_name, REG_BINARY, rank)


def _package_values(package: DriverPackage, place: StorePlace, hive: Hive) -> Iterator[RegistryValue]:
    key = _package_key(package)
    yield _text(hive, key, "", place.inf_name)
    yield _text(hive, key, "InfName", package.inf_name.lower())
    yield _text(hive, key, "Provider", package.provider)
    yield _text(hive, key, "OemPath", f"D:\\{package.source.rpartition('/')[0]}".replace("/", "\\"))
    if package.catalog_file is not None:
        yield _text(hive, key, "Catalog", package.inf.catalog)
    catalog = package.signature.catalog
    yield _text(hive, key, "SignerName", catalog.name if catalog is not None else "")
    best = package.signature.best
    yield _number(hive, key, "SignerScore", SCORES[best.kind if best is not None else None])
    yield _number(hive, key, "StatusFlags", STATUS)
    yield RegistryValue(hive, key, "Version", REG_BINARY, version_value(package))
    yield RegistryValue(hive, key, "ImportDate", REG_BINARY, _file_time(package))
    size = sum(len(file.data) for file in package.files)
    yield RegistryValue(hive, key, "FileSize", REG_QWORD, struct.pack("<Q", size))


def _configurations(package: DriverPackage, hive: Hive) -> Iterator[RegistryValue]:
    for one in package.installations:
        key = _configuration_key(package, one)
        yield _number(hive, key, "ConfigFlags", 0)
        yield _number(hive, key, "ConfigScope", _scope(one))
        yield _text(hive, key, "Service", one.service.name)
        yield from _lines(hive, f"{key}\\Device", one.device)
        yield from _lines(hive, f"{key}\\Services\\{one.service.name}", one.service.registry)


def _scope(installation: Installation) -> int:
    scope = SCOPE | SCOPE_SERVICE
    if installation.device:
        scope |= SCOPE_DEVICE
    return scope | SCOPE_WDF if installation.service.wdf_version else scope


def _descriptors(package: DriverPackage, hive: Hive) -> Iterator[RegistryValue]:
    key = _package_key(package)
    texts: dict[str, None] = {}
    for device in package.devices:
        description, manufacturer = device.model.description.lower(), device.model.manufacturer.lower()
        if not description.startswith("%"):
            description = device.model.description
        if not manufacturer.startswith("%"):
            manufacturer = device.model.manufacturer
        texts |= {description: None, manufacturer: None}
        for one in device.model.ids:
            below = f"{key}\\Descriptors\\{one}"
            yield _text(hive, below, "Configuration", device.installation.section)
            yield _text(hive, below, "Description", description)
            yield _text(hive, below, "Manufacturer", manufacturer)
    for name, value in package.inf.strings_of(*texts).items():
        yield _text(hive, f"{key}\\Strings", name, value)


def _keys(package: DriverPackage, place: StorePlace) -> Iterator[RegistryKey]:
    """Keys that may be without values."""
    service = f"{place.control_set}\\Services\\{package.service.name}"
    yield from (RegistryKey("SYSTEM", f"{service}\\{path}") for path in _key_paths(package.service.registry))
    for one in package.installations:
        key = _configuration_key(package, one)
        yield from (RegistryKey("SYSTEM", f"{key}\\Device\\{path}") for path in _key_paths(one.device))


def _key_paths(lines: Iterable[RegistryLine]) -> Iterator[str]:
    return (line.path for line in lines if line.type is None and line.path)


def _package_key(package: DriverPackage) -> str:
    return f"DriverDatabase\\DriverPackages\\{package.store_folder}"


def _configuration_key(package: DriverPackage, installation: Installation) -> str:
    return f"{_package_key(package)}\\Configurations\\{installation.section}"


# ---------------------------------------------------------------- protected files


def _locked(package: DriverPackage, place: StorePlace) -> Iterator[RegistryValue]:
    """Files that only an installation may replace."""
    for copied in {_path(file): file for file in _copied(package)}.values():
        key = f"Microsoft\\Windows\\CurrentVersion\\Setup\\PnpLockdownFiles\\%SystemRoot%/{_path(copied)}"
        source = f"%SystemRoot%\\{REPOSITORY}\\{package.store_folder}\\{copied.source}".replace("/", "\\")
        yield _number("SOFTWARE", key, "Class", LOCKED if package.inf.lockdown else NOT_LOCKED)
        yield _texts("SOFTWARE", key, "Owners", [place.inf_name])
        yield _expandable("SOFTWARE", key, "Source", source)


# ---------------------------------------------------------------- the other forms


def _minimal(package: DriverPackage) -> Iterator[RegistryValue]:
    """As virt-v2v does, with a name for each driver, since there are two."""
    name, configuration = f"guestor_{package.name}.inf", "guestor_conf"
    label = f"{name}_{package.target.architecture}_{MINIMAL_HASH}"
    hive: Hive = "SYSTEM"
    key = f"DriverDatabase\\DriverInfFiles\\{name}"
    yield _texts(hive, key, "", [label])
    yield _text(hive, key, "Active", label)
    yield _texts(hive, key, "Configurations", [configuration])
    below = f"DriverDatabase\\DriverPackages\\{label}"
    head = struct.pack("<HHI", 0xFF00, PROCESSORS[package.target.architecture], 0)
    yield RegistryValue(hive, below, "Version", REG_BINARY, head + package.class_guid.bytes_le + bytes(24))
    yield _number(hive, f"{below}\\Configurations\\{configuration}", "ConfigFlags", 0)
    yield _text(hive, f"{below}\\Configurations\\{configuration}", "Service", package.service.name)
    for one in package.ids:
        yield RegistryValue(hive, f"DriverDatabase\\DeviceIds\\{one}", name, REG_BINARY, FIRST_RANK)
        yield _text(hive, f"{below}\\Descriptors\\{one}", "Configuration", configuration)


def _critical(package: DriverPackage, place: StorePlace) -> Iterator[RegistryValue]:
    for one in package.ids:
        key = f"{place.control_set}\\Control\\CriticalDeviceDatabase\\{one.replace(chr(92), '#')}"
        yield _text("SYSTEM", key, "Service", package.service.name)
        yield _text("SYSTEM", key, "ClassGUID", f"{{{str(package.class_guid).upper()}}}")


# ---------------------------------------------------------------- values


def _lines(hive: Hive, key: str, lines: Iterable[RegistryLine]) -> Iterator[RegistryValue]:
    """The last line counts if two set the same value."""
    found: dict[tuple[str, str], RegistryValue] = {}
    for line in lines:
        if line.type is not None:
            path = f"{key}\\{line.path}" if line.path else key
            found[path.lower(), line.name.lower()] = RegistryValue(hive, path, line.name, line.type, line.data)
    return iter(found.values())


def _text(hive: Hive, path: str, name: str, text: str) -> RegistryValue:
    return RegistryValue(hive, path, name, REG_SZ, encoded(text))


def _expandable(hive: Hive, path: str, name: str, text: str) -> RegistryValue:
    return RegistryValue(hive, path, name, REG_EXPAND_SZ, encoded(text))


def _texts(hive: Hive, path: str, name: str, texts: Iterable[str]) -> RegistryValue:
    return RegistryValue(hive, path, name, REG_MULTI_SZ, encoded("\0".join([*texts, ""])))


def _number(hive: Hive, path: str, name: str, number: int) -> RegistryValue:
    return RegistryValue(hive, path, name, REG_DWORD, struct.pack("<I", number & 0xFFFFFFFF))
