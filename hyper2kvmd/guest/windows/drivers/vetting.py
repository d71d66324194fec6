"""Looks at a driver source before anything is converted: its releases of Windows, and its signatures."""

from __future__ import annotations

from collections.abc import Iterator

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.windows.drivers.choice import NEEDED, choose_package, read_infs
from hyper2kvmd.guest.windows.drivers.faults import GET_ANOTHER
from hyper2kvmd.guest.windows.drivers.package import DriverPackage
from hyper2kvmd.guest.windows.drivers.releases import CLIENT_FOLDERS, SERVER_FOLDERS, WindowsTarget
from hyper2kvmd.guest.windows.drivers.source import DriverSource
from hyper2kvmd.model.concerns import Concern

NAMES = {
    "w7": "7",
    "w8": "8",
    "w8.1": "8.1",
    "w10": "10",
    "w11": "11",
    "2k8r2": "Server 2008 R2",
    "2k12": "Server 2012",
    "2k12r2": "Server 2012 R2",
    "2k16": "Server 2016",
    "2k19": "Server 2019",
    "2k22": "Server 2022",
    "2k25": "Server 2025",
}
"""The releases that are looked at, by their folders in virtio-win."""


def vet(source: DriverSource) -> tuple[Concern, ...]:
    """What is said about the signatures of the disk and network drivers, for x64.

    Raises MigrationFailed: `virtio-win-no-driver` if no release has all drivers, `driver-not-signed` if no release has
    signed ones; and as `DriverSource.read` does.
    """
    if not any(name.lower().endswith(".inf") for name in source.names):
        raise MigrationFailed(
            "virtio-win-no-driver",
            f"{source.path}: contains no driver INF files, so it is not virtio-win",
            hint="Name a virtio-win ISO, or a folder with its files, in virtio_win",
            kind=Kind.OPERATOR,
        )
    infs = read_infs(source)
    found: dict[str, list[DriverPackage]] = {}
    for folder, name in NAMES.items():
        target = _target(folder)
        packages = [choose_package(source, infs, needed, target)[0] for needed in NEEDED]
        if all(package is not None for package in packages):
            found[name] = [package for package in packages if package is not None]
    if not found:
        raise MigrationFailed(
            "virtio-win-no-driver",
            f"{source.path}: no release of Windows has all of the drivers {', '.join(NEEDED)} for amd64",
            hint=GET_ANOTHER,
            kind=Kind.OPERATOR,
        )
    if not any(_are_signed(packages) for packages in found.values()):
        raise MigrationFailed(
            "driver-not-signed",
            f"{source.path}: none of its drivers are signed, and 64-bit Windows loads no such driver",
            hint=GET_ANOTHER,
            kind=Kind.OPERATOR,
        )
    return tuple(_concerns(source, found))


def _target(folder: str) -> WindowsTarget:
    server = folder in SERVER_FOLDERS
    return WindowsTarget((SERVER_FOLDERS if server else CLIENT_FOLDERS)[folder], server, "amd64")


def _are_signed(packages: list[DriverPackage]) -> bool:
    return all(package.signature.best is not None for package in packages)


def _concerns(source: DriverSource, found: dict[str, list[DriverPackage]]) -> Iterator[Concern]:
    """One for each fact, with the releases that it is about."""
    releases: dict[str, list[str]] = {}
    for name, packages in found.items():
        for fact in dict.fromkeys(fact for package in packages for fact in _facts(package)):
            releases.setdefault(fact, []).append(name)
    for fact, names in releases.items():
        yield Concern(
            code="driver-signature-limited",
            message=f"{source.path}: drivers for Windows {', '.join(names)}: {fact}",
            hint="Check it if the guest has such a release; drivers that Microsoft has certified have no limit",
            level="information",
        )


def _facts(package: DriverPackage) -> Iterator[str]:
    yield from (f"{package.name}: {fault}" for fault in package.signature.faults)
    if package.signature.best is None:
        yield f"{package.name} is not signed, so that a 64-bit guest would be refused"
    elif package.limit is not None:
        yield package.limit.reason
