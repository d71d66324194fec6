"""The processors, memory, firmware and identity of a machine, from its .vmx."""

from __future__ import annotations

import re
import struct
import uuid

from hyper2kvmd.machines.vmx.settings import Settings
from hyper2kvmd.model.machine import MAX_MEMORY, MAX_VCPUS, Firmware

MEMORY = range(4, MAX_MEMORY + 1)
"""MiB; VMware's smallest machine has 4."""
VCPUS = range(1, MAX_VCPUS + 1)
DEFAULT_MEMORY, DEFAULT_VCPUS, DEFAULT_CORES = 32, 1, 1
"""What VMware takes for missing keys. Source: libvirt, virVMXParseConfig."""
VERSIONS = range(1, 1000)
LITTLE_ENDIAN_SINCE = 13
"""The hardware version (ESXi 6.5) whose SMBIOS tables are version 2.7: there, and since SMBIOS 2.6 in general, the
first three fields of the UUID are little-endian. Source: DMTF DSP0134, 7.2.1; vmware/pyvmomi issue 688."""
UUID_BYTES = re.compile(r"[0-9A-Fa-f]{2}(?:[ -]?[0-9A-Fa-f]{2}){15}")
GENERATION = re.compile(r"-?[0-9]{1,20}")
SERIAL_LENGTH = 64
"""Bytes of a text in SMBIOS tables."""


def is_whole(settings: Settings) -> bool:
    """Whether it is a complete .vmx, so that a missing key means VMware's default. VMware itself requires both keys."""
    return bool(settings.text("config.version") and settings.text("virtualhw.version"))


def firmware_of(settings: Settings) -> Firmware:
    """VMware writes the key for UEFI only."""
    return "uefi" if settings.text("firmware").lower() == "efi" else "bios"


def memory_of(settings: Settings) -> int | None:
    """MiB."""
    return _number(settings, "memsize", MEMORY, DEFAULT_MEMORY)


def vcpus_of(settings: Settings) -> int | None:
    return _number(settings, "numvcpus", VCPUS, DEFAULT_VCPUS)


def cores_of(settings: Settings, vcpus: int | None) -> int | None:
    """Cores of one socket; None if they do not divide the processors."""
    cores = _number(settings, "cpuid.corespersocket", VCPUS, DEFAULT_CORES)
    return cores if cores is not None and vcpus is not None and vcpus % cores == 0 else None


def _number(settings: Settings, key: str, possible: range, default: int) -> int | None:
    if settings.text(key):
        return settings.number(key, possible)
    return default if is_whole(settings) else None


def tpm_of(settings: Settings) -> bool | None:
    """A TPM of vSphere or Workstation; the second key lets Workstation add one."""
    if settings.flag("vtpm.present") or settings.text("managedvm.autoaddvtpm").lower() == "software":
        return True
    return False if is_whole(settings) else None


def uuid_of(settings: Settings) -> str | None:
    """The UUID that a Linux guest shows, in the byte order of the hardware version; None without a version."""
    data, version = _uuid_bytes(settings), settings.number("virtualhw.version", VERSIONS)
    if data is None or version is None:
        return None
    return str(uuid.UUID(bytes_le=data) if version >= LITTLE_ENDIAN_SINCE else uuid.UUID(bytes=data))


def serial_of(settings: Settings) -> str | None:
    """The serial number that was set, else `VMware-` and the bytes of the UUID; None if it is that of the ESXi host."""
    if settings.flag("smbios.reflecthost") or settings.flag("serialnumber.reflecthost"):
        return None
    own = settings.text("serialnumber")
    if own:
        return own if own.isprintable() and len(own.encode()) <= SERIAL_LENGTH else None
    data = _uuid_bytes(settings)
    if data is None or settings.flag("smbios.useshortserialnumber"):
        return None
    return f"VMware-{data[:8].hex(' ')}-{data[8:].hex(' ')}"


def genid_of(settings: Settings) -> str | None:
    """The generation ID as the UUID with which QEMU shows the guest the same two numbers.

    Source: R. Jones on qemu-devel, 29 September 2021, who compared the numbers in guests of both.
    """
    words = [settings.text("vm.genid") or "0", settings.text("vm.genidx") or "0"]
    if not all(GENERATION.fullmatch(word) for word in words):
        return None
    low, high = (int(word) % (1 << 64) for word in words)
    return str(uuid.UUID(bytes_le=struct.pack("<QQ", low, high))) if low or high else None


def _uuid_bytes(settings: Settings) -> bytes | None:
    written = settings.text("uuid.bios")
    return bytes.fromhex(re.sub("[ -]", "", written)) if UUID_BYTES.fullmatch(written) else None
