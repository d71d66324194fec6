"""Compares a planned machine with what its libvirt can run.

libvirt would reject it after the conversion, or define a domain that cannot start.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.model.machine import Hardware
from hyper2kvmd.targets.libvirt.connection import Libvirt, reason_of

ARCHITECTURE = "x86_64"
MAX_VCPUS_WITHOUT_IOMMU = 255
"""Of a domain without an IOMMU device, such as ours: more need extended interrupt mode. libvirt checks the same."""
COUNT = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


@dataclass(frozen=True)
class DomainCapabilities:
    """What libvirt says of one machine type. None: it does not say, or not in a form known here."""

    most_vcpus: int | None = None
    firmware: frozenset[str] | None = None
    secure: frozenset[str] | None = None
    """`yes` if a firmware has Secure Boot."""
    tpm: frozenset[str] | None = None
    """The kinds of TPM; `emulator` is swtpm."""

    @staticmethod
    def of(xml: str) -> DomainCapabilities:
        """From the XML of `virsh domcapabilities` (libvirt.org/formatdomaincaps.html)."""
        try:
            root = ET.fromstring(xml)  # noqa: S314
        except ET.ParseError:
            return DomainCapabilities()
        most = root.find("vcpu")
        text = "" if most is None else most.get("max", "").strip()
        tpm = root.find("devices/tpm")
        return DomainCapabilities(
            most_vcpus=int(text) if COUNT.fullmatch(text) else None,
            firmware=_values(root, "os/enum[@name='firmware']"),
            secure=_values(root, "os/loader/enum[@name='secure']"),
            tpm=frozenset()
            if tpm is not None and tpm.get("supported") == "no"
            else _values(root, "devices/tpm/enum[@name='backendModel']"),
        )

    @property
    def lacks_tpm(self) -> bool:
        return self.tpm is not None and "emulator" not in self.tpm


def _values(root: ET.Element, path: str) -> frozenset[str] | None:
    offered = root.find(path)
    return None if offered is None else frozenset((value.text or "").strip() for value in offered)


def capabilities_for(libvirt: Libvirt, vm_name: str, machine: str) -> DomainCapabilities | None:
    """None for a libvirt that reports no capabilities, such as the test driver.

    Raises MigrationFailed (`hardware-unsupported`) if libvirt does not have the machine type.
    """
    shown = libvirt.virsh("domcapabilities", "--arch", ARCHITECTURE, "--machine", machine)
    if shown.returncode == 0:
        return DomainCapabilities.of(shown.stdout)
    if libvirt.virsh("domcapabilities", "--arch", ARCHITECTURE).returncode != 0:
        return None
    fact = f"does not support the machine type {machine}: {reason_of(shown)}"
    hint = "Set machine: to a type that this host has, such as q35, or migrate to a host that has this one"
    raise _unsupported(libvirt, vm_name, fact, hint)


def require_supported(libvirt: Libvirt, vm_name: str, hardware: Hardware, found: DomainCapabilities) -> None:
    """Raise MigrationFailed (`hardware-unsupported`) for hardware that libvirt does not support there."""
    machine = hardware.machine
    most = min(MAX_VCPUS_WITHOUT_IOMMU, found.most_vcpus or MAX_VCPUS_WITHOUT_IOMMU)
    if hardware.vcpus > most:
        fact = f"limits the machine type {machine} to {most} virtual CPUs, and this machine has {hardware.vcpus}"
        raise _unsupported(libvirt, vm_name, fact, f"Set vcpus: {most}, or less")
    if hardware.firmware == "uefi" and found.firmware is not None and "efi" not in found.firmware:
        hint = "Install OVMF there (package ovmf or edk2-ovmf), or set machine: to another type"
        raise _unsupported(libvirt, vm_name, f"has no UEFI firmware for the machine type {machine}", hint)
    if hardware.secure_boot and found.secure is not None and "yes" not in found.secure:
        hint = "Install OVMF with Secure Boot there and use machine: q35, or set secure_boot: false"
        raise _unsupported(libvirt, vm_name, f"has no firmware with Secure Boot for the machine type {machine}", hint)


def tpm_unsupported(libvirt: Libvirt, vm_name: str) -> MigrationFailed:
    """For a machine whose migration asks for a TPM."""
    hint = "Install swtpm and swtpm-tools there, or set tpm: false"
    return _unsupported(libvirt, vm_name, "cannot emulate a TPM", hint)


def _unsupported(libvirt: Libvirt, vm_name: str, fact: str, hint: str) -> MigrationFailed:
    message = f"{vm_name}: libvirt at {libvirt.uri} {fact}"
    return MigrationFailed("hardware-unsupported", message, hint=hint, kind=Kind.OPERATOR)
