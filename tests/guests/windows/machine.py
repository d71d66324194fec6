"""One installed Windows: what its disk and its registry are made from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from tests.guests.windows.adapters import DHCP, STATIC, Adapter
from tests.guests.windows.releases import ARCHITECTURES, SERVER_2022, Architecture, Release

Firmware = Literal["bios", "uefi"]


@dataclass(frozen=True)
class Windows:
    release: Release = SERVER_2022
    firmware: Firmware = "bios"
    architecture: Architecture = "AMD64"
    computer: str = "WINWEB01"
    adapters: tuple[Adapter, ...] = (STATIC, DHCP)
    control_set: Literal[1, 2] = 1
    """The current one."""
    clock_in_utc: Literal["no", "dword", "qword"] = "no"
    """The type of RealTimeIsUniversal."""
    san_policy: int = 1
    is_clustered: bool = False
    has_group_policy: bool = False
    """Extensions of group policy were applied."""
    known_devices: int = 150
    """Devices in the driver database."""

    @property
    def package_architecture(self) -> str:
        return ARCHITECTURES[self.architecture]

    def with_changes(self, **changes: Any) -> Self:
        return replace(self, **changes)
