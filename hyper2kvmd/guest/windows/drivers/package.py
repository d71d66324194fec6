"""Driver packages: an INF with its files, as the driver store of Windows keeps them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from uuid import UUID

from hyper2kvmd.guest.windows.drivers.inf import STORE, Decoration, DriverService, Inf, Installation, Model
from hyper2kvmd.guest.windows.drivers.releases import WindowsTarget
from hyper2kvmd.guest.windows.drivers.signature import Signature, SignatureLimit, limits


@dataclass(frozen=True)
class DriverFile:
    name: str
    """Beside the INF."""
    source: str
    """Its path in the driver source."""
    data: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class PackageDevice:
    """A device of the INF, and what its installation does."""

    model: Model
    installation: Installation


@dataclass(frozen=True)
class DriverPackage:
    name: str
    """Of the driver, such as `viostor`."""
    source: str
    """The path of its INF in the driver source."""
    inf: Inf = field(repr=False)
    decoration: Decoration = field(repr=False)
    """What its INF demands of Windows."""
    target: WindowsTarget
    devices: tuple[PackageDevice, ...] = field(repr=False)
    """Those that virtual machines have; the INF may list more."""
    files: tuple[DriverFile, ...] = field(repr=False)
    """INF, catalogue, and all files that the INF copies."""
    signature: Signature
    file_version: tuple[int, int, int, int] | None = None
    """Of the driver itself."""

    @property
    def inf_name(self) -> str:
        return self.inf_file.name

    @property
    def inf_file(self) -> DriverFile:
        return self.files[0]

    @property
    def catalog_file(self) -> DriverFile | None:
        return self.file(self.inf.catalog) if self.inf.catalog else None

    @property
    def version(self) -> str:
        """By the INF."""
        return ".".join(map(str, self.inf.version))

    @property
    def date(self) -> date:
        return self.inf.date

    @property
    def provider(self) -> str:
        return self.inf.provider

    @property
    def class_guid(self) -> UUID:
        return self.inf.class_guid

    @property
    def service(self) -> DriverService:
        return self.devices[0].installation.service

    @property
    def installations(self) -> tuple[Installation, ...]:
        """Each once: several devices may share one."""
        return tuple({one.installation.section.lower(): one.installation for one in self.devices}.values())

    @property
    def ids(self) -> tuple[str, ...]:
        """Hardware ids of all its devices, each once."""
        return tuple(dict.fromkeys(one for device in self.devices for one in device.model.ids))

    @property
    def driver(self) -> DriverFile:
        """The program that the service starts."""
        found = self.file(self.service.binary.source)
        assert found is not None  # noqa: S101 - the INF copies it, and all of these files are in the package
        return found

    @property
    def runs_from_store(self) -> bool:
        return self.service.binary.folder == STORE

    @property
    def signer(self) -> str:
        """Who signed it; empty if nobody did."""
        best = self.signature.best
        return best.name if best is not None else ""

    @property
    def limit(self) -> SignatureLimit | None:
        """Why the guest may not load it, if it is signed."""
        return limits(self.signature, self.target)

    @property
    def loads_without_secure_boot(self) -> bool:
        return self.limit is None or self.limit.is_for_secure_boot

    @property
    def loads_with_secure_boot(self) -> bool:
        """Whether nothing is known against it: an unsigned driver is loaded by 32-bit Windows only."""
        return self.signature.best is not None and self.limit is None

    @cached_property
    def store_folder(self) -> str:
        """Its folder in the driver store. Windows has a hash of its own in this name, which it does not verify."""
        total = hashlib.sha256()
        for file in self.files:
            total.update(f"{file.name.lower()}\0{len(file.data)}\0".encode())
            total.update(file.data)
        return f"{self.inf_name.lower()}_{self.target.architecture}_{total.hexdigest()[:16]}"

    def file(self, name: str) -> DriverFile | None:
        return next((one for one in self.files if one.name.lower() == name.lower()), None)
