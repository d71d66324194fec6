"""The virtio drivers that a Windows guest gets: chosen from the driver source of the migration, shown in the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.windows.drivers.choice import choose_packages, find_agent, signature_concerns
from hyper2kvmd.guest.windows.drivers.package import DriverFile, DriverPackage
from hyper2kvmd.guest.windows.drivers.releases import WindowsTarget
from hyper2kvmd.guest.windows.drivers.source import DriverSource
from hyper2kvmd.guest.windows.inspect import WINDOWS_8, WindowsSystem
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.guest import EXTRAS, DiskBus, DriverFileFact, Extra, NicModel, WindowsDriver

STORAGE: dict[DiskBus, str] = {"virtio": "viostor", "scsi": "vioscsi"}
"""The driver of each bus that Windows has none for."""
EXTRA_DRIVERS: dict[Extra, str] = {"agent": "vioserial", "balloon": "balloon", "rng": "viorng"}
WITHOUT_DRIVERS = Concern(
    code="windows-no-virtio",
    message="no virtio drivers were given: the new machine has SATA disks and e1000e network cards, which are slower",
    hint="Set virtio_win to a virtio-win ISO and convert again, or install the drivers in the guest later",
)


@dataclass(frozen=True)
class Drivers:
    packages: tuple[DriverPackage, ...] = ()
    """Empty without a driver source."""
    agent: DriverFile | None = None
    """The installer of QEMU's guest agent."""
    left_out: tuple[DriverPackage, ...] = ()
    """Those that Windows would not load: at boot it even stops at such a driver."""

    @property
    def are_given(self) -> bool:
        """Whether there is a driver source."""
        return bool(self.packages or self.left_out)

    def has(self, name: str) -> bool:
        return any(package.name == name for package in self.packages)

    @property
    def forbid_secure_boot(self) -> bool:
        """Whether Windows may refuse one of them, and perhaps its disk, with Secure Boot."""
        return any(not package.loads_with_secure_boot for package in self.packages)

    def facts(self) -> tuple[WindowsDriver, ...]:
        return tuple(_fact(package) for package in self.packages)

    def concerns(self, migration: Migration, *, secure_boot: bool) -> tuple[Concern, ...]:
        """`secure_boot`: whether the new machine has it, unless a driver forbids it."""
        if self.left_out:
            return (_left_out(self.left_out), *signature_concerns(self.packages, secure_boot=secure_boot))
        if not self.packages:
            return (WITHOUT_DRIVERS,)
        loses_it = secure_boot and self.forbid_secure_boot and not migration.secure_boot
        found = signature_concerns(self.packages, secure_boot=secure_boot and not loses_it)
        return (*found, *((_without_secure_boot(self.packages),) if loses_it else ()))


def find_drivers(system: WindowsSystem, source: Path | None, mandate: Mandate, migration: Migration) -> Drivers:
    """Raises MigrationFailed as `choose_packages`, and `windows-disk-driver-missing`."""
    if source is None:
        return Drivers()
    target = WindowsTarget(build=system.build, server=system.server, architecture=system.architecture.lower())
    with DriverSource.open(source, mandate) as opened:
        packages, agent = choose_packages(opened, target), find_agent(opened, target)
    if migration.win_disk in STORAGE:  # the guest may be in test mode: then it loads them
        return Drivers(packages, agent)
    used = tuple(package for package in packages if package.loads_without_secure_boot)
    return Drivers(used, agent, left_out=tuple(package for package in packages if package not in used))


def choose_devices(drivers: Drivers, migration: Migration) -> tuple[DiskBus, NicModel]:
    """Raises MigrationFailed (`windows-disk-driver-missing`) for a bus that Windows could not start from."""
    bus: DiskBus
    if migration.win_disk == "auto":
        bus = next((bus for bus, name in STORAGE.items() if drivers.has(name)), "sata")
    else:
        bus = migration.win_disk
    if bus in STORAGE and not drivers.has(STORAGE[bus]):
        raise MigrationFailed(
            "windows-disk-driver-missing",
            f"win_disk is {bus}, and there is no driver {STORAGE[bus]} for it",
            hint="Set virtio_win to a virtio-win ISO with that driver, or set win_disk: auto",
            kind=Kind.OPERATOR,
        )
    return bus, "virtio" if drivers.has("netkvm") else "e1000e"


def choose_extras(drivers: Drivers, system: WindowsSystem) -> tuple[Extra, ...]:
    """The devices that this Windows can drive. Before version 8 it has no driver for USB 3: it gets PS/2 devices."""
    without_driver = {extra for extra, name in EXTRA_DRIVERS.items() if not drivers.has(name)}
    if system.build < WINDOWS_8:
        without_driver.add("usb")
    return tuple(extra for extra in EXTRAS if extra not in without_driver)


def _left_out(packages: Sequence[DriverPackage]) -> Concern:
    limits = dict.fromkeys(package.limit.reason for package in packages if package.limit)
    return Concern(
        code="windows-driver-refused",
        message=f"Windows would not load the drivers {', '.join(package.name for package in packages)} "
        f"({'; '.join(limits)}): they are left out, and the new machine has devices that Windows' own drivers support",
        hint="Use a virtio-win ISO with drivers that Microsoft has certified. If the guest is in test mode, set "
        "win_disk: virtio",
    )


def _without_secure_boot(packages: Sequence[DriverPackage]) -> Concern:
    limited = [package for package in packages if not package.loads_with_secure_boot]
    reasons = dict.fromkeys(package.limit.reason if package.limit else "not signed" for package in limited)
    return Concern(
        code="windows-secure-boot-off",
        message="the new machine gets no Secure Boot, with which Windows may refuse the drivers "
        f"{', '.join(package.name for package in limited)}: each is {'; '.join(reasons)}",
        hint="Use a virtio-win ISO with drivers that Microsoft has certified (WHQL), or set secure_boot: true to keep "
        "Secure Boot at the risk that Windows does not start",
    )


def _fact(package: DriverPackage) -> WindowsDriver:
    files = tuple(DriverFileFact(name=file.name, sha256=file.sha256) for file in package.files)
    return WindowsDriver(
        name=package.name,
        version=package.version,
        signer=package.signer,
        note=package.limit.reason if package.limit else "",
        files=files,
    )
