"""Compares a planned machine with what its libvirt can run.

libvirt would reject it after the conversion, or define a domain that cannot start.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.machine import Firmware
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

    @staticmethod
    def of(xml: str) -> DomainCapabilities:
        """From the XML of `virsh domcapabilities` (libvirt.org/formatdomaincaps.html)."""
        try:
            root = ET.fromstring(xml)  # noqa: S314
        except ET.ParseError:
            return DomainCapabilities()
        most = root.find("vcpu")
        text = "" if most is None else most.get("max", "").strip()
        offered = root.find("os/enum[@name='firmware']")
        return DomainCapabilities(
            most_vcpus=int(text) if COUNT.fullmatch(text) else None,
            firmware=None if offered is None else frozenset((value.text or "").strip() for value in offered),
        )


def require_supported(libvirt: Libvirt, vm_name: str, *, machine: str, vcpus: int, firmware: Firmware) -> None:
    """Raise MigrationFailed (`hardware-unsupported`) for hardware that libvirt does not support there.

    A libvirt that reports no capabilities, such as the test driver, is not checked.
    """

    def cannot_run(fact: str, hint: str) -> MigrationFailed:
        message = f"{vm_name}: libvirt at {libvirt.uri} {fact}"
        return MigrationFailed("hardware-unsupported", message, hint=hint, kind=Kind.OPERATOR)

    shown = libvirt.virsh("domcapabilities", "--arch", ARCHITECTURE, "--machine", machine)
    if shown.returncode != 0:
        if libvirt.virsh("domcapabilities", "--arch", ARCHITECTURE).returncode != 0:
            return
        hint = "Set machine: to a type that this host has, such as q35, or migrate to a host that has this one"
        raise cannot_run(f"does not support the machine type {machine}: {reason_of(shown)}", hint)
    capabilities = DomainCapabilities.of(shown.stdout)
    most = min(MAX_VCPUS_WITHOUT_IOMMU, capabilities.most_vcpus or MAX_VCPUS_WITHOUT_IOMMU)
    if vcpus > most:
        fact = f"limits the machine type {machine} to {most} virtual CPUs, and this machine has {vcpus}"
        raise cannot_run(fact, f"Set vcpus: {most}, or less")
    if firmware == "uefi" and capabilities.firmware is not None and "efi" not in capabilities.firmware:
        hint = "Install OVMF there (package ovmf or edk2-ovmf), or set machine: to another type"
        raise cannot_run(f"has no UEFI firmware for the machine type {machine}", hint)


def missing_network(libvirt: Libvirt, vm_name: str, network: str) -> Iterator[Concern]:
    """A concern if libvirt does not have the network: the domain can be defined, and does not start."""
    listed = libvirt.virsh("net-list", "--all", "--name")
    if listed.returncode == 0 and network not in listed.stdout.splitlines():
        yield Concern(
            code="network-missing",
            message=f"libvirt at {libvirt.uri} has no network {network}",
            hint=f"Create it before you start {vm_name}",
        )
