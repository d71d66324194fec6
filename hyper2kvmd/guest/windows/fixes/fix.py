"""The interface of the repairs of Windows guests. Each is one file here, with its reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.windows.first_boot import FirstBoot
from hyper2kvmd.guest.windows.hives import Hives
from hyper2kvmd.guest.windows.inspect import SOFTWARE, SYSTEM, WindowsSystem
from hyper2kvmd.guest.windows.registry import Key
from hyper2kvmd.guest.windows.virtio import Drivers
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.machine import Firmware


@dataclass(frozen=True)
class WindowsCase:
    """One guest under repair. Repairs read files and hives, and stage their edits there."""

    system: WindowsSystem
    tree: GuestTree
    hives: Hives
    migration: Migration
    firmware: Firmware
    drivers: Drivers
    first_boot: FirstBoot
    esp: str | None = None
    """Mount point of the EFI system partition in `tree`."""

    def write(self, path: str, data: bytes, fix: str, summary: str) -> None:
        """Stage a file, unless it is there already."""
        if not self.tree.has_content(path, data):
            self.tree.write_bytes(path, data, fix=fix, summary=summary)

    def control(self, path: str) -> Key | None:
        """A key of the current control set."""
        return self.hives.read(SYSTEM).find(rf"{self.system.control_set}\{path}")

    def service(self, name: str) -> Key | None:
        return self.control(rf"Services\{name}")

    def software(self, path: str) -> Key | None:
        return self.hives.read(SOFTWARE).find(path)

    def number(self, path: str, name: str) -> int | None:
        """A value of a key of the current control set."""
        key = self.control(path)
        value = key.value(name) if key else None
        return value.number() if value else None


@dataclass(frozen=True)
class WindowsFix:
    """`apply` returns concerns, and raises MigrationFailed if the repair is not possible."""

    name: str
    summary: str
    """What its edits of the registry are for, in the report."""
    apply: Callable[[WindowsCase], list[Concern]]
