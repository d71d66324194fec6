"""Chooses the packages of a source that fit a release of Windows: by INF decoration, build and architecture.

Folder names of the source only decide between INF files for the same version of Windows.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hyper2kvmd.errors import Failure, Kind, MigrationFailed
from hyper2kvmd.guest.windows.drivers import pe
from hyper2kvmd.guest.windows.drivers.faults import shown, unreadable
from hyper2kvmd.guest.windows.drivers.inf import Decoration, Inf, Installation, Model, first_build, parse_inf
from hyper2kvmd.guest.windows.drivers.inf_text import LARGEST as LARGEST_INF
from hyper2kvmd.guest.windows.drivers.package import DriverFile, DriverPackage, PackageDevice
from hyper2kvmd.guest.windows.drivers.releases import WindowsTarget, folder_rank
from hyper2kvmd.guest.windows.drivers.signature import SignatureLimit, SignedFiles, read_signature
from hyper2kvmd.guest.windows.drivers.source import DriverSource
from hyper2kvmd.model.concerns import Concern

VENDOR = "PCI\\VEN_1AF4&DEV_"
DEVICES = {
    "viostor": ("1001", "1042"),
    "vioscsi": ("1004", "1048"),
    "netkvm": ("1000", "1041"),
    "balloon": ("1002", "1045"),
    "vioserial": ("1003", "1043"),
    "viorng": ("1005", "1044"),
}
"""PCI device ids of virtio devices, transitional and modern (VIRTIO 1.2, sections 4.1.2 and 4.1.2.1)."""
NEEDED = ("viostor", "vioscsi", "netkvm")
"""Without these the guest has no disk or no network. The others are left out if the source lacks them."""
ALL_INFS = 32 << 20
"""Bytes of all INF files that are read: those of virtio-win have about 6 MiB."""
MOST_CANDIDATES = 64
"""INF files that are tried for a driver and a release, the best ones first: virtio-win has about 25."""
MOST_DEVICES, MOST_FILES = 64, 500
"""Of one package."""
LARGEST_DRIVER, LARGEST_PACKAGE = 16 << 20, 64 << 20
"""Bytes of one file, and of a package."""
AGENTS = {"amd64": ("x86_64", "x64"), "x86": ("i386", "x86")}
LARGEST_AGENT = 64 << 20
MSI = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
LEFT_OUT = ("virtio-win-unreadable", "source-unsafe")
"""Errors of single files: damage, or a link in a folder."""
SHOWN = 12
"""Folders that a message lists."""


@dataclass(frozen=True)
class FoundInf:
    path: str
    inf: Inf


@dataclass(frozen=True)
class _Candidate:
    found: FoundInf
    decoration: Decoration
    models: tuple[Model, ...]


class _Unfit(ValueError):
    """Why a candidate is not taken."""


def choose_packages(source: DriverSource, target: WindowsTarget) -> tuple[DriverPackage, ...]:
    """The packages for the virtio devices of a guest, in the order of DEVICES.

    Raises MigrationFailed (`virtio-win-no-driver`, `driver-not-signed`, `virtio-win-unreadable`), and as
    `DriverSource.read` does.
    """
    infs = read_infs(source)
    chosen = []
    for name in DEVICES:
        package, reasons = choose_package(source, infs, name, target)
        if package is None and name in NEEDED:
            raise _no_driver(source, infs, name, target, reasons)
        if package is None or not (name in NEEDED or _may_load(package)):
            continue
        _require_signed(package, source)
        chosen.append(package)
    return tuple(chosen)


def find_agent(source: DriverSource, target: WindowsTarget) -> DriverFile | None:
    """The installer of the QEMU guest agent; None if the source has none for the architecture.

    Raises as `DriverSource.read` does.
    """
    names = {f"qemu-ga-{suffix}.msi" for suffix in AGENTS.get(target.architecture, ())}
    for path in source.names:
        name = posixpath.basename(path)
        if name.lower() in names:
            data = source.read(path, LARGEST_AGENT)
            return DriverFile(name, path, data) if data.startswith(MSI) else None
    return None


def signature_concerns(packages: Sequence[DriverPackage], *, secure_boot: bool) -> Iterator[Concern]:
    """Signatures that do not fit, and packages that the guest may not load with this state of Secure Boot.

    Packages with the same limit have one concern.
    """
    limited: dict[SignatureLimit, list[str]] = {}
    for package in packages:
        if package.signature.best is None:
            yield _limited([package.name], package.target, _not_signed(package).removeprefix("is "), secure_boot)
            continue
        for fault in package.signature.faults:
            yield _limited([package.name], package.target, fault, secure_boot)
        if package.limit is not None and (secure_boot or not package.limit.is_for_secure_boot):
            limited.setdefault(package.limit, []).append(package.name)
    for limit, names in limited.items():
        yield _limited(names, packages[0].target, limit.reason, secure_boot)


def _limited(names: Sequence[str], target: WindowsTarget, fact: str, secure_boot: bool) -> Concern:
    who = f"the driver {names[0]}" if len(names) == 1 else f"each of the drivers {', '.join(names)}"
    return Concern(
        code="driver-signature-limited",
        message=f"{who} for {target}: {fact}",
        hint="Use a virtio-win ISO with drivers that Microsoft has certified"
        + (", or remove secure_boot: true" if secure_boot else ""),
    )


def _may_load(package: DriverPackage) -> bool:
    return package.signature.best is not None or not package.target.enforces_signatures


def _require_signed(package: DriverPackage, source: DriverSource) -> None:
    """Raise MigrationFailed (`driver-not-signed`) if the guest can never load the driver."""
    if _may_load(package):
        return
    raise MigrationFailed(
        "driver-not-signed",
        f"{source.path}: {shown(package.source)} {_not_signed(package)}, and it is for {package.target}, which loads "
        "no such driver",
        hint="Use a virtio-win ISO whose drivers are signed; compare its checksum with the original's",
        kind=Kind.OPERATOR,
    )


def _not_signed(package: DriverPackage) -> str:
    faults = "; ".join(package.signature.faults)
    return f"is not signed ({faults})" if faults else "is not signed"


def read_infs(source: DriverSource) -> tuple[FoundInf, ...]:
    """The INF files for virtio devices. One that cannot be read is left out: it may be for another device.

    Raises as `DriverSource.read` does.
    """
    found = []
    total = 0
    for path in source.names:
        if not path.lower().endswith(".inf"):
            continue
        try:
            data = source.read(path, LARGEST_INF)
            total += len(data)
            if total > ALL_INFS:
                break
            if b"VEN_1AF4" in data.replace(b"\0", b"").upper():
                found.append(FoundInf(path, parse_inf(data, shown(path))))
        except Failure as error:
            if error.code not in LEFT_OUT:
                raise
    if total > ALL_INFS:
        raise unreadable(source.path, f"its INF files have more than {ALL_INFS >> 20} MiB")
    return tuple(found)


def choose_package(
    source: DriverSource, infs: Sequence[FoundInf], name: str, target: WindowsTarget
) -> tuple[DriverPackage | None, list[str]]:
    """The best package for a driver, or why no candidate can be taken. Raises as `DriverSource.read` does."""
    reasons = []
    candidates = sorted(_candidates(infs, name, target), key=lambda one: _rank(one, target), reverse=True)
    for candidate in candidates[:MOST_CANDIDATES]:
        try:
            return _package(source, candidate, name, target), []
        except _Unfit as error:
            reasons.append(f"{shown(candidate.found.path)} {error}")
        except Failure as error:
            if error.code not in LEFT_OUT:
                raise
            reasons.append(error.message)
    return None, reasons


def _candidates(infs: Sequence[FoundInf], name: str, target: WindowsTarget) -> Iterator[_Candidate]:
    for found in infs:
        try:
            fitting = found.inf.models(target)
        except Failure as error:
            if error.code not in LEFT_OUT:
                raise
            continue
        if fitting is None:
            continue
        decoration, models = fitting
        wanted = tuple(model for model in models if _is_for(model, name))
        if wanted:
            yield _Candidate(found, decoration, wanted)


def _is_for(model: Model, name: str) -> bool:
    return any(re.match(re.escape(f"{VENDOR}{device}") + "(&|$)", one) for one in model.ids for device in DEVICES[name])


def _rank(candidate: _Candidate, target: WindowsTarget) -> tuple[object, ...]:
    """The INF for the most recent version of Windows is the best one.

    virtio-win has two for Windows 10 and later, which differ in the build that they demand. Its folders tell for which
    releases each was tested.
    """
    found, demand = candidate.found, candidate.decoration
    newest = demand.build, demand.kind, found.inf.date, found.inf.version
    return (demand.major, demand.minor), folder_rank(found.path, target), newest, found.path


def _package(source: DriverSource, candidate: _Candidate, name: str, target: WindowsTarget) -> DriverPackage:
    """Raises _Unfit, and MigrationFailed (`virtio-win-unreadable`)."""
    inf, path = candidate.found.inf, candidate.found.path
    if len(candidate.models) > MOST_DEVICES:
        raise _Unfit(f"has {len(candidate.models)} devices, more than {MOST_DEVICES}")
    devices = tuple(PackageDevice(model, inf.installation(model, target)) for model in candidate.models)
    for device in devices:
        if first_build(device.installation) > target.build:
            raise _Unfit("runs from the driver store, which this release cannot do")
    files = tuple(_files(source, path, inf, [device.installation for device in devices]))
    binary = devices[0].installation.service.binary.source
    driver = next(file for file in files if file.name.lower() == binary.lower())
    program = _program(driver, target)
    signature = read_signature(
        SignedFiles(
            files={file.name: file.data for file in files},
            inf=files[0].name,
            catalog=_spelling(files, inf.catalog),
            binary=driver.name,
        )
    )
    return DriverPackage(
        name=name,
        source=path,
        inf=inf,
        decoration=candidate.decoration,
        target=target,
        devices=devices,
        files=files,
        signature=signature,
        file_version=program.version,
    )


def _spelling(files: Sequence[DriverFile], name: str) -> str:
    return next((file.name for file in files if file.name.lower() == name.lower()), name)


def _program(driver: DriverFile, target: WindowsTarget) -> pe.DriverProgram:
    try:
        program = pe.parse(driver.data)
    except pe.NotPe as error:
        raise _Unfit(f"has no usable {shown(driver.name)}: {error}") from error
    if program.architecture != target.architecture:
        raise _Unfit(f"has a {shown(driver.name)} for {program.architecture}")
    return program


def _files(source: DriverSource, path: str, inf: Inf, installations: Sequence[Installation]) -> Iterator[DriverFile]:
    """INF, catalogue, what the installations copy, and the other files that the INF lists, as far as they exist."""
    folder = posixpath.dirname(path)
    copied = [file.source for installation in installations for file in installation.files]
    names = [posixpath.basename(path), *filter(None, [inf.catalog]), *copied, *inf.source_files()]
    needed = {name.lower() for name in copied}
    total = count = 0
    for name in dict.fromkeys(name.lower() for name in names):
        found = source.find(posixpath.join(folder, name))
        if found is None and name in needed:
            raise _Unfit(f"lacks {shown(name)}")
        if found is None:
            continue
        data = source.read(found, LARGEST_DRIVER)
        total, count = total + len(data), count + 1
        if total > LARGEST_PACKAGE or count > MOST_FILES:
            raise _Unfit(f"has more than {MOST_FILES} files, or more than {LARGEST_PACKAGE >> 20} MiB")
        yield DriverFile(posixpath.basename(found), found, data)


def _no_driver(
    source: DriverSource, infs: Sequence[FoundInf], name: str, target: WindowsTarget, reasons: Sequence[str]
) -> MigrationFailed:
    if reasons:
        fact = f"no usable driver {name} for {target}: {reasons[0]}"
    else:
        fact = f"no driver {name} for {target}; it has {listed(infs, name)}"
    return MigrationFailed(
        "virtio-win-no-driver",
        f"{source.path}: {fact}",
        hint="Name a virtio-win ISO with drivers for this release in virtio_win, or remove the key: the new machine "
        "then has SATA disks and e1000e network cards",
        kind=Kind.OPERATOR,
    )


def listed(infs: Sequence[FoundInf], name: str) -> str:
    """The folders of the INF files for a device, for a message."""
    models = (
        found for found in infs if any(f"DEV_{device}" in text for text in _texts(found) for device in DEVICES[name])
    )
    folders = [shown(posixpath.dirname(found.path) or "/") for found in models]
    more = f" and {len(folders) - SHOWN} more" if len(folders) > SHOWN else ""
    return f"it in {', '.join(folders[:SHOWN])}{more}" if folders else "none for any release"


def _texts(found: FoundInf) -> Iterator[str]:
    return (line.upper() for lines in found.inf.text.sections.values() for line in lines)
