"""What an INF says: its devices for a release of Windows, and what their installation copies and registers.

Sources: Microsoft, "INF Manufacturer Section", "INF Models Section", "INF DDInstall Section", "INF AddService
Directive", "INF AddReg Directive", "INF DestinationDirs Section".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import TypeVar
from uuid import UUID

from hyper2kvmd.guest.windows.drivers.faults import shown, unreadable
from hyper2kvmd.guest.windows.drivers.inf_text import InfText, read_text
from hyper2kvmd.guest.windows.drivers.releases import STORE_DRIVERS_FROM, WindowsTarget

T = TypeVar("T")
MOST_IDS = 2000
"""Hardware ids of one INF."""
MOST_FILES, MOST_REGISTRY_LINES = 500, 2000
"""Of one installation. An INF may list a section many times, so its size alone limits neither."""
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+ -]{0,99}")
HARDWARE_ID = re.compile(r"[A-Z0-9_&.*\\{}-]{1,199}")
SECTION_NAME = re.compile(r"[^\\\x00-\x1f]{1,200}")
SERVICE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,80}")
REGISTRY_PATH = re.compile(r"[^\x00-\x1f]{0,255}")
DECORATION = re.compile(
    r"nt(?P<architecture>x86|amd64|arm64|arm|ia64)?"
    r"(?:\.(?P<major>\d{0,3})(?:\.(?P<minor>\d{0,3})(?:\.(?P<kind>(?:0x)?[0-9a-f]{0,8})"
    r"(?:\.(?P<suite>(?:0x)?[0-9a-f]{0,8})(?:\.(?P<build>\d{0,6}))?)?)?)?)?"
)
WORKSTATION, SERVERS = 1, (2, 3)
"""Product types: a workstation, a domain controller and another server."""
WINDOWS, SYSTEM32, DRIVERS, STORE = 10, 11, 12, 13
"""DIRIDs. With STORE, a file stays in the folder of its package in the driver store."""
FOLDERS = {WINDOWS: "", SYSTEM32: "System32", DRIVERS: "System32/drivers"}
"""Below the system root."""
DWORD, KEY_ONLY, DELETED = 0x00010001, 0x10, 0x4
TYPE_MASK = 0xFFFF0001
PROPERTIES = ("devicecharacteristics", "devicetype", "exclusive", "security")
"""Names that an installation makes properties of the device, not values."""
REG_NONE, REG_SZ, REG_EXPAND_SZ, REG_BINARY, REG_DWORD, REG_MULTI_SZ = 0, 1, 2, 3, 4, 7
TYPES = {
    0: REG_SZ,
    1: REG_BINARY,
    0x10000: REG_MULTI_SZ,
    0x20000: REG_EXPAND_SZ,
    DWORD: REG_DWORD,
    0x20001: REG_NONE,
}
"""Of the registry, by the flags of an AddReg line."""


@dataclass(frozen=True, order=True)
class Decoration:
    """What a models section demands: at least this version and build; `kind` is a product type, or 0 for any."""

    major: int = 0
    minor: int = 0
    build: int = 0
    kind: int = 0
    architecture: str = ""
    suite: int = 0

    def fits(self, target: WindowsTarget) -> bool:
        """x86 is the only architecture for which an INF need not name it."""
        if (self.architecture or "x86") != target.architecture or self.suite:
            return False
        if self.kind and (self.kind in SERVERS) != target.server:
            return False
        return (self.major, self.minor, self.build) <= (*target.version, target.build)


@dataclass(frozen=True)
class Model:
    """One device: `section` names its installation, and `ids` are in the order of their rank."""

    description: str
    """As in the INF: a token such as `%VirtioScsi.DeviceDesc%`, or text."""
    manufacturer: str
    section: str
    ids: tuple[str, ...]


@dataclass(frozen=True)
class RegistryLine:
    """One AddReg line below the key that the installation means (HKR). Without a type, it is only a key."""

    path: str
    name: str
    type: int | None
    data: bytes


@dataclass(frozen=True)
class CopiedFile:
    name: str
    """In the installed system."""
    source: str
    """Beside the INF."""
    folder: int
    """A DIRID."""
    subfolder: str = ""


@dataclass(frozen=True)
class DriverService:
    name: str
    type: int
    start: int
    error_control: int
    binary: CopiedFile
    group: str
    display_name: str
    """As in the INF, a token or text."""
    registry: tuple[RegistryLine, ...]
    events: tuple[RegistryLine, ...]
    """For the event log."""
    wdf_version: str = ""
    """The version of the kernel-mode driver framework, such as `1.15`."""

    @property
    def is_boot_start(self) -> bool:
        return self.start == 0


@dataclass(frozen=True)
class Installation:
    """What an INF asks for, for the devices of one install section."""

    section: str
    """The name of the section in the INF with its decoration."""
    files: tuple[CopiedFile, ...]
    service: DriverService
    device: tuple[RegistryLine, ...]
    """Below the key of the device (section `.HW`)."""


@dataclass(frozen=True)
class Inf:
    text: InfText
    class_name: str
    class_guid: UUID
    provider: str
    version: tuple[int, int, int, int]
    date: date
    catalog: str
    lockdown: bool

    @property
    def name(self) -> str:
        return self.text.name

    def decorations(self) -> tuple[Decoration, ...]:
        """What its models sections demand, in their order."""
        return tuple(found for _, _, decorations in self._manufacturers() for found, _ in decorations)

    def models(self, target: WindowsTarget) -> tuple[Decoration, tuple[Model, ...]] | None:
        """The devices for a release; None if no models section is for it."""
        best: Decoration | None = None
        models: list[Model] = []
        for manufacturer, base, decorations in self._manufacturers():
            fitting = [(one, written) for one, written in decorations if one.fits(target)]
            if fitting:
                decoration, written = max(fitting)
                best = decoration if best is None else max(best, decoration)
                section = f"{base}.{written}" if written else base
                models += self._models(section, manufacturer)
        return None if best is None else (best, tuple(models))

    def installation(self, model: Model, target: WindowsTarget) -> Installation:
        """Raises MigrationFailed (`virtio-win-unreadable`)."""
        section = self._decorated(model.section, target)
        if section is None or not SECTION_NAME.fullmatch(section):
            raise unreadable(self.name, f"this INF has no usable section {shown(model.section)}")
        files = tuple(self._files(section))
        service = self._service(section, files)
        device = (one for one in self._registry(f"{section}.HW") if one.path or one.name.lower() not in PROPERTIES)
        return Installation(section, files, service, tuple(device))

    def source_files(self) -> tuple[str, ...]:
        """All files of the package, but for INF and catalogue."""
        sections = (title for title in self.text.sections if title.split(".")[0] == "sourcedisksfiles")
        names = (key for title in sections for key, _ in self.text.entries(title))
        return tuple(dict.fromkeys(name for name in names if FILE_NAME.fullmatch(name)))

    def strings_of(self, *texts: str) -> dict[str, str]:
        """The tokens in texts, lower case without percent signs, with their values."""
        names = {name.lower() for text in texts for name in re.findall(r"%([^%]+)%", text)}
        return {name: self.text.strings[name] for name in sorted(names) if name in self.text.strings}

    def _manufacturers(self) -> Iterator[tuple[str, str, list[tuple[Decoration, str]]]]:
        """Name, base of the models sections, and decorations with their spelling."""
        for name, fields in self.text.raw_entries("manufacturer"):
            values = [self.text.expanded(field) for field in fields]
            if not values:
                continue
            decorations = [] if len(values) > 1 else [(Decoration(), "")]
            for written in values[1:]:
                parsed = parse_decoration(written)
                if parsed is not None:
                    decorations.append((parsed, written))
            yield name, values[0], decorations

    def _models(self, section: str, manufacturer: str) -> Iterator[Model]:
        found = 0
        for description, fields in self.text.raw_entries(section):
            values = [self.text.expanded(field) for field in fields]
            ids = tuple(value.upper() for value in values[1:] if value)
            found += len(ids)
            if found > MOST_IDS:
                raise unreadable(self.name, f"this INF has more than {MOST_IDS} hardware ids")
            if ids and all(HARDWARE_ID.fullmatch(one) for one in ids):
                yield Model(description, manufacturer, values[0], ids)

    def _decorated(self, base: str, target: WindowsTarget) -> str | None:
        """The install section for the architecture, in the spelling that the driver store has."""
        for suffix in (f".NT{target.architecture}", ".NT", ""):
            if f"{base}{suffix}".lower() in self.text.sections:
                return base + suffix
        return None

    def _files(self, section: str) -> Iterator[CopiedFile]:
        places = {key.lower(): fields for key, fields in self.text.entries("destinationdirs")}
        for listed, name, source in self._limited(self._copy_lines(section), MOST_FILES, f"files of {shown(section)}"):
            for part in (name, source):
                if not FILE_NAME.fullmatch(part):
                    raise unreadable(self.name, f"this INF copies {shown(part)}, which is not a plain file name")
            place = places.get(listed) or places.get("defaultdestdir") or [str(SYSTEM32)]
            yield CopiedFile(name, source, _number(place[0]) or 0, place[1] if len(place) > 1 else "")

    def _copy_lines(self, section: str) -> Iterator[tuple[str, str, str]]:
        """The section that decides where a file goes, its name there, and its name beside the INF."""
        for listed in self._listed(section, "copyfiles"):
            if listed.startswith("@"):
                yield "defaultdestdir", listed[1:], listed[1:]
                continue
            for line in self.text.lines(listed):
                name, source, *_ = [*self.text.fields(line), "", ""]
                yield listed, name, source or name

    def _listed(self, section: str, key: str) -> tuple[str, ...]:
        """What the lines with that key list, in lower case but for files, each once."""
        fields = (field for fields in self.text.values(section, key) for field in fields if field)
        return tuple(dict.fromkeys(field if field.startswith("@") else field.lower() for field in fields))

    def _limited(self, found: Iterable[T], most: int, what: str) -> Iterator[T]:
        for number, one in enumerate(found):
            if number >= most:
                raise unreadable(self.name, f"this INF has more than {most} {what}")
            yield one

    def _service(self, section: str, files: tuple[CopiedFile, ...]) -> DriverService:
        for fields in self.text.values(f"{section}.Services", "addservice"):
            name, flags, install, events, *_ = [*fields, "", "", "", ""]
            if (_number(flags) or 0) & 2:  # the service of the device
                return self._described(section, name, install, events, files)
        raise unreadable(self.name, f"this INF has no service for {shown(section)}")

    def _described(
        self, section: str, name: str, install: str, events: str, files: tuple[CopiedFile, ...]
    ) -> DriverService:
        if not SERVICE_NAME.fullmatch(name):
            raise unreadable(self.name, f"this INF has the service {shown(name)}, which is not a valid name")
        numbers = [self._count(install, key) for key in ("servicetype", "starttype", "errorcontrol")]
        entries = self.text.raw_entries(install)
        display = next((fields[0] for key, fields in entries if fields and key.lower() == "displayname"), "")
        return DriverService(
            name=name,
            type=numbers[0],
            start=numbers[1],
            error_control=numbers[2],
            binary=self._binary(install, files),
            group=self.text.value(install, "loadordergroup"),
            display_name=display,
            registry=tuple(self._registry(install)),
            events=tuple(self._registry(events)) if events else (),
            wdf_version=self._wdf_version(section),
        )

    def _count(self, section: str, key: str) -> int:
        found = _number(self.text.value(section, key))
        if found is None:
            raise unreadable(self.name, f"this INF has no {key} in its section {shown(section)}")
        return found

    def _binary(self, install: str, files: tuple[CopiedFile, ...]) -> CopiedFile:
        """The file that `ServiceBinary` means, such as `%12%\\viostor.sys`; the INF has to copy it."""
        written = self.text.value(install, "servicebinary")
        name = written.rpartition("\\")[2].lower()
        found = next((file for file in files if file.name.lower() == name), None)
        if found is None:
            raise unreadable(self.name, f"this INF does not copy the program {shown(written)} of its service")
        if found.folder not in (*FOLDERS, STORE):
            fact = f"this INF copies the program of its service to the folder {found.folder}, which is not supported"
            raise unreadable(self.name, fact)
        return found

    def _wdf_version(self, section: str) -> str:
        for fields in self.text.values(f"{section}.Wdf", "kmdfservice"):
            if len(fields) > 1:
                return self.text.value(fields[1], "kmdflibraryversion")
        return ""

    def _registry(self, section: str) -> Iterator[RegistryLine]:
        lines = (line for listed in self._listed(section, "addreg") for line in self.text.lines(listed))
        for line in self._limited(lines, MOST_REGISTRY_LINES, f"registry values of {shown(section)}"):
            parsed = self._registry_line(line)
            if parsed is not None:
                yield parsed

    def _registry_line(self, line: str) -> RegistryLine | None:
        fields = self.text.fields(line)
        root, path, name, flags = [*fields, "", "", ""][:4]
        if root.upper() != "HKR" or not REGISTRY_PATH.fullmatch(path) or not REGISTRY_PATH.fullmatch(name):
            return None
        value = _number(flags) if flags else 0
        if value is None or value & DELETED:
            return None
        if value & KEY_ONLY:
            return RegistryLine(path.strip("\\"), "", None, b"")
        return _typed(path.strip("\\"), name, value & TYPE_MASK, fields[4:])


def parse_inf(data: bytes, name: str = "INF") -> Inf:
    """Raises MigrationFailed (`virtio-win-unreadable`). `name` is for messages."""
    text = read_text(data, name)
    if not text.value("version", "signature").lower().startswith("$windows nt"):
        raise unreadable(name, "this file is no INF of Windows NT: it has no such signature")
    day, version = _driver_version(next(text.values("version", "driverver"), []))
    catalog = _catalog(text)
    if catalog and not FILE_NAME.fullmatch(catalog):
        raise unreadable(name, f"this INF has the catalogue {shown(catalog)}, which is not a plain file name")
    return Inf(
        text=text,
        class_name=text.value("version", "class"),
        class_guid=_guid(text.value("version", "classguid"), name),
        provider=text.value("version", "provider"),
        version=version,
        date=day,
        catalog=catalog,
        lockdown=text.value("version", "pnplockdown") == "1",
    )


def parse_decoration(written: str) -> Decoration | None:
    """`NTamd64.10.0...17763` and the like; None if it is not a decoration."""
    found = DECORATION.fullmatch(written.strip().lower())
    if found is None:
        return None
    kind = _number(found["kind"] or "0") or 0
    return Decoration(
        major=int(found["major"] or 0),
        minor=int(found["minor"] or 0),
        build=int(found["build"] or 0),
        kind=kind if kind in (WORKSTATION, *SERVERS) else 0,
        architecture=found["architecture"] or "",
        suite=_number(found["suite"] or "0") or 0,
    )


def needs_store(installation: Installation) -> bool:
    """Whether the driver runs from the driver store, which needs build STORE_DRIVERS_FROM."""
    return any(file.folder == STORE for file in installation.files)


def first_build(installation: Installation) -> int:
    return STORE_DRIVERS_FROM if needs_store(installation) else 0


def _catalog(text: InfText) -> str:
    """A decorated entry such as `CatalogFile.NTamd64` counts if there is no plain one."""
    named = {key.lower(): fields[0] for key, fields in text.entries("version") if fields}
    decorated = (value for key, value in named.items() if key.startswith("catalogfile.nt"))
    return named.get("catalogfile") or next(decorated, "")


def _driver_version(fields: list[str]) -> tuple[date, tuple[int, int, int, int]]:
    """`05/03/2024,100.95.104.26200`; what cannot be read is the start of the calendar of Windows, and zeros."""
    day, version = [*fields, "", ""][:2]
    numbers = [int(part) for part in version.split(".") if re.fullmatch(r"\d{1,5}", part)]
    first, second, third, fourth = [*(min(number, 0xFFFF) for number in numbers[:4]), 0, 0, 0, 0][:4]
    found = re.fullmatch(r"(\d{1,2})[/-](\d{1,2})[/-](\d{4})", day)
    try:
        when = date(int(found[3]), int(found[1]), int(found[2])) if found else date(1601, 1, 1)
    except ValueError:
        when = date(1601, 1, 1)
    return max(when, date(1601, 1, 1)), (first, second, third, fourth)


def _guid(text: str, name: str) -> UUID:
    if not re.fullmatch(r"\{[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\}", text):
        raise unreadable(name, f"this INF has no valid ClassGuid: {shown(text)!r}")
    return UUID(text)


def _number(text: str) -> int | None:
    """Decimal or hexadecimal, of 32 bits."""
    text = text.strip()
    if re.fullmatch(r"\d{1,10}", text):
        return int(text) & 0xFFFFFFFF
    return int(text, 16) if re.fullmatch(r"0[xX][0-9A-Fa-f]{1,8}", text) else None


def _typed(path: str, name: str, flags: int, data: list[str]) -> RegistryLine | None:
    kind = TYPES.get(flags)
    if kind is None:
        return None
    if kind == REG_DWORD:
        number = _number(data[0]) if data else 0
        return None if number is None else RegistryLine(path, name, kind, number.to_bytes(4, "little"))
    if kind in (REG_BINARY, REG_NONE):
        if not all(re.fullmatch(r"(0x)?[0-9A-Fa-f]{1,2}", byte) for byte in data):
            return None
        return RegistryLine(path, name, kind, bytes(int(byte, 16) for byte in data))
    if kind == REG_MULTI_SZ:
        return RegistryLine(path, name, kind, encoded("\0".join([*data, ""])))
    return RegistryLine(path, name, kind, encoded(data[0] if data else ""))


def encoded(text: str) -> bytes:
    """As the registry stores it: UTF-16 with a final NUL."""
    return (text + "\0").encode("utf-16-le", errors="replace")
