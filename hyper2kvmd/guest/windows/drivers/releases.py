"""Releases of Windows: their versions by build number, and the folders that virtio-win has for them."""

from __future__ import annotations

from dataclasses import dataclass

VERSIONS = ((10240, (10, 0)), (9600, (6, 3)), (9200, (6, 2)), (7600, (6, 1)), (6000, (6, 0)))
"""First build of each version of the NT kernel."""
SERVER_FOLDERS = {
    "2k8": 6001,
    "2k8r2": 7600,
    "2k12": 9200,
    "2k12r2": 9600,
    "2k16": 14393,
    "2k19": 17763,
    "2k22": 20348,
    "2k25": 26100,
}
CLIENT_FOLDERS = {"w7": 7600, "w8": 9200, "w8.1": 9600, "w10": 10240, "w11": 22000}
"""The folders of virtio-win, with the first build of each release."""
STORE_DRIVERS_FROM = 16299
"""The first build (1709) that starts drivers from the driver store, DIRID 13."""
ATTESTED_FROM = 10240
"""The first build that accepts attestation signatures (Windows 10)."""
CROSS_SIGNED_UNTIL = 14393
"""From this build (1607) on, new drivers need a signature of Microsoft if Secure Boot is on."""
DATABASE_FROM = 9200
"""The first build that reads its drivers from the DriverDatabase (Windows 8)."""


@dataclass(frozen=True)
class WindowsTarget:
    """The guest for which drivers are chosen. `architecture` is `amd64`, `x86` or `arm64`, as in INF files."""

    build: int
    server: bool
    architecture: str

    @property
    def version(self) -> tuple[int, int]:
        return next((version for first, version in VERSIONS if self.build >= first), (5, 0))

    @property
    def enforces_signatures(self) -> bool:
        return self.architecture != "x86"

    def __str__(self) -> str:
        kind = "Windows Server" if self.server else "Windows"
        return f"{kind}, build {self.build}, {self.architecture}"


def folder_rank(path: str, target: WindowsTarget) -> tuple[bool, bool, int]:
    """How well the folders in a path fit: not newer than the guest, of its kind, and the newest of these."""
    parts = path.lower().split("/")
    for folders, server in ((SERVER_FOLDERS, True), (CLIENT_FOLDERS, False)):
        for part in parts:
            if part in folders:
                return folders[part] <= target.build, server == target.server, folders[part]
    return True, False, 0
