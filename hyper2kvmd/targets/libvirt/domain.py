"""The domain XML: one `Hardware` in libvirt's schema."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Literal

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware
from hyper2kvmd.model.results import Artifact
from hyper2kvmd.targets.libvirt.devices import add_devices

Hypervisor = Literal["kvm", "qemu"]
METADATA = "urn:hyper2kvm:migration"
"""The XML namespace of our element in `<metadata>`."""
SPINLOCK_RETRIES = "8191"
"""Windows' own default."""
ENLIGHTENMENTS = ("relaxed", "vapic", "spinlocks", "vpindex", "runtime", "synic", "stimer", "frequencies")
"""Hyper-V's interfaces that KVM has on every host: others depend on the CPU, or on nested virtualization."""


@dataclass(frozen=True)
class Identity:
    """The UUID of a domain, which its guest sees in SMBIOS, and the mark of the job that defines it."""

    uuid: str
    mark: str

    def is_of(self, domain: ET.Element) -> bool:
        """Whether the domain was defined by this job."""
        marked = domain.find(f"metadata/{{{METADATA}}}migration")
        return marked is not None and marked.get("id") == self.mark


def domain_xml(
    migration: Migration,
    hardware: Hardware,
    guest: Guest,
    artifact: Artifact,
    identity: Identity,
    hypervisor: Hypervisor,
) -> str:
    """The domain in libvirt's schema (libvirt.org, Domain XML format)."""
    domain = ET.Element("domain", type=hypervisor)
    _text(domain, "name", migration.vm_name)
    _text(domain, "uuid", identity.uuid)
    if hardware.genid is not None:
        _text(domain, "genid", hardware.genid)
    _text(domain, "description", f"{guest.os_name or 'Guest'}, migrated from {migration.sources[0].name} by hyper2kvmd")
    metadata = ET.SubElement(domain, "metadata")
    ET.SubElement(metadata, "hyper2kvm:migration", {"xmlns:hyper2kvm": METADATA, "id": identity.mark})
    _text(domain, "memory", str(hardware.memory), unit="MiB")
    _text(domain, "vcpu", str(hardware.vcpus))
    _firmware(domain, hardware)
    _features(domain, hardware, hypervisor)
    _processor(domain, hardware, hypervisor)
    _clock(domain, hardware, hypervisor)
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(domain, event, action)
    add_devices(ET.SubElement(domain, "devices"), migration, hardware, artifact)
    ET.indent(domain)
    text: str = ET.tostring(domain, encoding="unicode")
    return f"{text}\n"


def _firmware(domain: ET.Element, hardware: Hardware) -> None:
    uefi, secure = hardware.firmware == "uefi", hardware.secure_boot
    os_element = ET.SubElement(domain, "os", {"firmware": "efi"} if uefi else {})
    _text(os_element, "type", "hvm", arch="x86_64", machine=hardware.machine)
    if uefi:
        firmware = ET.SubElement(os_element, "firmware")
        for feature in ("enrolled-keys", "secure-boot") if secure else ("secure-boot",):
            ET.SubElement(firmware, "feature", enabled="yes" if secure else "no", name=feature)
    if hardware.serial is not None:
        # the UUID in SMBIOS is the domain's
        ET.SubElement(os_element, "smbios", mode="sysinfo")
        system = ET.SubElement(ET.SubElement(domain, "sysinfo", type="smbios"), "system")
        ET.SubElement(system, "entry", name="serial").text = hardware.serial


def _features(domain: ET.Element, hardware: Hardware, hypervisor: Hypervisor) -> None:
    features = ET.SubElement(domain, "features")
    for feature in ("acpi", "apic"):
        ET.SubElement(features, feature)
    if hardware.hyperv and hypervisor == "kvm":
        interfaces = ET.SubElement(features, "hyperv")
        for name in ENLIGHTENMENTS:
            retries = {"retries": SPINLOCK_RETRIES} if name == "spinlocks" else {}
            ET.SubElement(interfaces, name, {"state": "on", **retries})
    ET.SubElement(features, "vmport", state="off")
    if hardware.secure_boot:
        ET.SubElement(features, "smm", state="on")


def _processor(domain: ET.Element, hardware: Hardware, hypervisor: Hypervisor) -> None:
    # host-model follows the host and can still migrate live between hosts; emulation has only its own maximum
    cpu = ET.SubElement(domain, "cpu", mode="host-model" if hypervisor == "kvm" else "maximum")
    if hardware.cores_per_socket is not None:
        sockets, cores = str(hardware.sockets), str(hardware.cores_per_socket)
        ET.SubElement(cpu, "topology", sockets=sockets, cores=cores, threads="1")


def _clock(domain: ET.Element, hardware: Hardware, hypervisor: Hypervisor) -> None:
    clock = ET.SubElement(domain, "clock", offset=hardware.rtc)
    ET.SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    ET.SubElement(clock, "timer", name="pit", tickpolicy="delay")
    ET.SubElement(clock, "timer", name="hpet", present="no")
    if hardware.hyperv and hypervisor == "kvm":
        ET.SubElement(clock, "timer", name="hypervclock", present="yes")


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text
