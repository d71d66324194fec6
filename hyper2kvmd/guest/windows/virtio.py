"""The virtio drivers that a Windows guest gets: chosen from the driver source of the migration, shown in the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.windows.drivers.choice import choose_packages, find_agent, signature_concerns
from hyper2kvmd.guest.windows.drivers.package import DriverFile, DriverPackage
from hyper2kvmd.guest.windows.drivers.releases import CROSS_SIGNED_UNTIL, WindowsTarget
from hyper2kvmd.guest.windows.drivers.signature import limits
from hyper2kvmd.guest.windows.drivers.source import DriverSource
from hyper2kvmd.guest.windows.inspect import WindowsSystem
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.guest import DiskBus, DriverFileFact, NicModel, WindowsDriver

STORAGE: dict[DiskBus, str] = {"virtio": "viostor", "scsi": "vioscsi"}
"""The driver of each bus that Windows has none for."""
WITHOUT_DRIVERS = Concern(
    code="windows-no-virtio",
    message="no virtio drivers were given: the new machine has SATA disks and e1000e network cards, which are slower",
    hint="Set virtio_win to a virtio-win ISO and convert again, or install the drivers in the guest later",
)

WITHOUT_SECURE_BOOT = Concern(
    code="windows-secure-boot-off",
    message="the new machine gets no Secure Boot: with it, Windows loads only drivers that Microsoft has signed",
    hint="Use the virtio-win ISO of a vendor whose drivers Microsoft has signed, or remove virtio_win",
    level="information",
)


@dataclass(frozen=True)
class Drivers:
    packages: tuple[DriverPackage, ...] = ()
    """Empty without a driver source."""
    agent: DriverFile | None = None
    """The installer of QEMU's guest agent."""

    def has(self, name: str) -> bool:
        return any(package.name == name for package in self.packages)

    @property
    def forbid_secure_boot(self) -> bool:
        """Whether Windows would refuse one of them, and perhaps its disk, with Secure Boot."""
        return any(_needs_insecure_boot(package) for package in self.packages)

    def facts(self) -> tuple[WindowsDriver, ...]:
        return tuple(_fact(package) for package in self.packages)

    def concerns(self) -> tuple[Concern, ...]:
        if not self.packages:
            return (WITHOUT_DRIVERS,)
        return (*signature_concerns(self.packages), *((WITHOUT_SECURE_BOOT,) if self.forbid_secure_boot else ()))


def find_drivers(system: WindowsSystem, source: Path | None, mandate: Mandate) -> Drivers:
    """Raises MigrationFailed as `choose_packages`, and `windows-disk-driver-missing`."""
    if source is None:
        return Drivers()
    target = WindowsTarget(build=system.build, server=system.server, architecture=system.architecture.lower())
    with DriverSource.open(source, mandate) as opened:
        return Drivers(choose_packages(opened, target), find_agent(opened, target))


def choose_devices(drivers: Drivers, migration: Migration) -> tuple[DiskBus, NicModel]:
    """Raises MigrationFailed (`windows-disk-driver-missing`) for a bus that Windows could not start from."""
    bus: DiskBus
    if migration.win_disk == "auto":
        bus = "virtio" if drivers.has(STORAGE["virtio"]) else "sata"
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


def _needs_insecure_boot(package: DriverPackage) -> bool:
    best = package.signature.best
    if best is None or best.kind == "test":
        return True
    return best.kind == "vendor" and package.target.build >= CROSS_SIGNED_UNTIL


def _fact(package: DriverPackage) -> WindowsDriver:
    files = tuple(DriverFileFact(name=file.name, sha256=file.sha256) for file in package.files)
    return WindowsDriver(
        name=package.name,
        version=package.version,
        signer=package.signer,
        note=limits(package.signature, package.target) or "",
        files=files,
    )
