"""Compares a planned machine with what its libvirt can run.

libvirt would reject it after the conversion, or define a domain that cannot start.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.model.machine import Firmware
from hyper2kvmd.targets.libvirt.connection import Libvirt, reason_of

ARCHITECTURE = "x86_64"
MAX_VCPUS_WITHOUT_IOMMU = 255
"""Of a domain without an IOMMU device, such as ours: more need extended interrupt mode. libvirt checks the same."""


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
    capabilities = ET.fromstring(shown.stdout)  # noqa: S314
    most = min((MAX_VCPUS_WITHOUT_IOMMU, *_most_vcpus(capabilities)))
    if vcpus > most:
        fact = f"limits the machine type {machine} to {most} virtual CPUs, and this machine has {vcpus}"
        raise cannot_run(fact, f"Set vcpus: {most}, or less")
    offered = capabilities.find("os/enum[@name='firmware']")
    if firmware == "uefi" and offered is not None and "efi" not in {value.text for value in offered}:
        hint = "Install OVMF there (package ovmf or edk2-ovmf), or set machine: to another type"
        raise cannot_run(f"has no UEFI firmware for the machine type {machine}", hint)


def missing_network(libvirt: Libvirt, vm_name: str, network: str) -> Iterator[str]:
    """A warning if libvirt does not have the network: the domain can be defined, and does not start."""
    listed = libvirt.virsh("net-list", "--all", "--name")
    if listed.returncode == 0 and network not in listed.stdout.splitlines():
        yield f"libvirt at {libvirt.uri} has no network {network}: create it before you start {vm_name}"


def _most_vcpus(capabilities: ET.Element) -> Iterator[int]:
    for element in capabilities.iterfind("vcpu"):
        yield int(element.get("max", MAX_VCPUS_WITHOUT_IOMMU))
