"""The UEFI firmware of the boot proof, from the descriptors that QEMU and libvirt use.

Source: QEMU's docs/interop/firmware.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hyper2kvmd.errors import BrokenInstallation

DESCRIPTORS = Path("/usr/share/qemu/firmware")
"""One JSON file per firmware."""
SECURE = {"secure-boot", "enrolled-keys", "requires-smm"}
"""Features of the firmware that a domain with Secure Boot gets."""


def uefi_firmware(*, secure_boot: bool = False) -> tuple[Path, Path]:
    """OVMF's code and its template of variables. With Secure Boot, Microsoft's keys are in these.

    Raises BrokenInstallation (`firmware-missing`).
    """
    for descriptor in sorted(DESCRIPTORS.glob("*.json")):
        firmware = json.loads(descriptor.read_bytes())
        if _is_wanted(firmware, secure_boot):
            mapping = firmware["mapping"]
            return Path(mapping["executable"]["filename"]), Path(mapping["nvram-template"]["filename"])
    raise BrokenInstallation(
        "firmware-missing",
        f"no UEFI firmware{' with Secure Boot' if secure_boot else ''} for virtual machines is installed",
        hint="Install the package ovmf or edk2-ovmf",
    )


def _is_wanted(firmware: dict[str, Any], secure_boot: bool) -> bool:
    machines = {machine for target in firmware["targets"] for machine in target["machines"]}
    mapping, features = firmware["mapping"], set(firmware["features"])
    return (
        "uefi" in firmware["interface-types"]
        and "pc-q35-*" in machines
        and mapping["device"] == "flash"
        and mapping["executable"]["format"] == "raw"
        and (features >= SECURE if secure_boot else not {"requires-smm", "enrolled-keys"} & features)
    )
