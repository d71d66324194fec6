"""The Windows releases that disks are made for, as their registries name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Architecture = Literal["AMD64", "x86", "ARM64"]
ARCHITECTURES: dict[str, str] = {"AMD64": "amd64", "x86": "x86", "ARM64": "arm64"}
"""As the registry names a processor, and as driver packages do."""


@dataclass(frozen=True)
class Release:
    name: str
    product: str
    version: str
    """CurrentVersion: it stays at 6.3 from Windows 8.1 on."""
    build: int
    edition: str
    folder: str
    """Of its drivers on a virtio-win disc."""
    display: str = ""
    """DisplayVersion, from Windows 10 20H2 on."""

    @property
    def is_server(self) -> bool:
        return self.edition.startswith("Server")

    @property
    def is_10_or_later(self) -> bool:
        return self.build >= 10240

    @property
    def has_driver_database(self) -> bool:
        return self.build >= 9200


WINDOWS_7 = Release("7", "Windows 7 Professional", "6.1", 7601, "Professional", "w7")
SERVER_2008_R2 = Release("2008r2", "Windows Server 2008 R2 Standard", "6.1", 7601, "ServerStandard", "2k8R2")
WINDOWS_8_1 = Release("8.1", "Windows 8.1 Pro", "6.3", 9600, "Professional", "w8.1")
SERVER_2012_R2 = Release("2012r2", "Windows Server 2012 R2 Standard", "6.3", 9600, "ServerStandard", "2k12R2")
SERVER_2016 = Release("2016", "Windows Server 2016 Standard", "6.3", 14393, "ServerStandard", "2k16")
SERVER_2019 = Release("2019", "Windows Server 2019 Datacenter", "6.3", 17763, "ServerDatacenter", "2k19")
SERVER_2022 = Release("2022", "Windows Server 2022 Standard", "6.3", 20348, "ServerStandard", "2k22", "21H2")
SERVER_2025 = Release("2025", "Windows Server 2025 Standard", "6.3", 26100, "ServerStandard", "2k25", "24H2")
WINDOWS_10 = Release("10", "Windows 10 Pro", "6.3", 19045, "Professional", "w10", "22H2")
WINDOWS_11 = Release("11", "Windows 10 Pro", "6.3", 22631, "Professional", "w11", "23H2")
"""Windows 11 calls itself Windows 10 in ProductName."""
RELEASES = (
    *(WINDOWS_7, SERVER_2008_R2, WINDOWS_8_1, SERVER_2012_R2, SERVER_2016),
    *(SERVER_2019, SERVER_2022, SERVER_2025, WINDOWS_10, WINDOWS_11),
)
