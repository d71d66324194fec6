"""The domain XML: one `Hardware` in libvirt's schema."""

from __future__ import annotations

import string
import xml.etree.ElementTree as ET
from typing import Literal

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware
from hyper2kvmd.model.results import Artifact

Hypervisor = Literal["kvm", "qemu"]
DISK_NAMES = {"virtio": "vd", "sata": "sd"}


def domain_xml(
    migration: Migration, hardware: Hardware, guest: Guest, artifact: Artifact, identity: str, hypervisor: Hypervisor
) -> str:
    """The domain in libvirt's schema (libvirt.org, Domain XML format)."""
    domain = ET.Element("domain", type=hypervisor)
    _text(domain, "name", migration.vm_name)
    _text(domain, "uuid", identity)
    _text(domain, "description", f"{guest.os_name or 'Guest'}, migrated from {migration.sources[0].name} by hyper2kvmd")
    _text(domain, "memory", str(hardware.memory), unit="MiB")
    _text(domain, "vcpu", str(hardware.vcpus))
    _firmware(domain, hardware)
    features = ET.SubElement(domain, "features")
    for feature in ("acpi", "apic"):
        ET.SubElement(features, feature)
    ET.SubElement(features, "vmport", state="off")
    # host-model follows the host and can still migrate live between hosts; emulation has only its own maximum
    ET.SubElement(domain, "cpu", mode="host-model" if hypervisor == "kvm" else "maximum")
    clock = ET.SubElement(domain, "clock", offset=hardware.rtc)
    ET.SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    ET.SubElement(clock, "timer", name="pit", tickpolicy="delay")
    ET.SubElement(clock, "timer", name="hpet", present="no")
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(domain, event, action)
    _devices(ET.SubElement(domain, "devices"), migration.libvirt_network, hardware, artifact)
    ET.indent(domain)
    text: str = ET.tostring(domain, encoding="unicode")
    return f"{text}\n"


def _firmware(domain: ET.Element, hardware: Hardware) -> None:
    uefi = hardware.firmware == "uefi"
    os_element = ET.SubElement(domain, "os", {"firmware": "efi"} if uefi else {})
    _text(os_element, "type", "hvm", arch="x86_64", machine=hardware.machine)
    if uefi:
        # a guest's own loader may be unsigned, and its keys stayed behind in VMware's NVRAM
        firmware = ET.SubElement(os_element, "firmware")
        ET.SubElement(firmware, "feature", enabled="no", name="secure-boot")


def _devices(devices: ET.Element, network: str, hardware: Hardware, artifact: Artifact) -> None:
    letters = DISK_NAMES[hardware.disk_bus]
    for number, published in enumerate(artifact.disks):
        disk = ET.SubElement(devices, "disk", type="file", device="disk")
        ET.SubElement(disk, "driver", name="qemu", type=artifact.format, discard="unmap")
        ET.SubElement(disk, "source", file=str(published.path))
        ET.SubElement(disk, "backingStore")  # so libvirt follows no backing file of an image swapped in later
        ET.SubElement(disk, "target", dev=f"{letters}{string.ascii_lowercase[number]}", bus=hardware.disk_bus)
        if number == hardware.boot_disk:
            ET.SubElement(disk, "boot", order="1")
    if "usb" in hardware.extras:
        ET.SubElement(devices, "controller", type="usb", model="qemu-xhci")
    for mac in hardware.macs:
        interface = ET.SubElement(devices, "interface", type="network")
        ET.SubElement(interface, "mac", address=mac)
        ET.SubElement(interface, "source", network=network)
        ET.SubElement(interface, "model", type=hardware.nic_model)
    for port, kind in (("serial", {}), ("console", {"type": "serial"})):
        element = ET.SubElement(devices, port, type="pty")
        ET.SubElement(element, "target", {**kind, "port": "0"})
    if "agent" in hardware.extras:
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    if "usb" in hardware.extras:
        ET.SubElement(devices, "input", type="tablet", bus="usb")
    ET.SubElement(devices, "graphics", type="vnc", autoport="yes", listen="127.0.0.1")
    video = ET.SubElement(devices, "video")
    ET.SubElement(video, "model", type=hardware.video)
    # without the element, libvirt adds a balloon by itself
    ET.SubElement(devices, "memballoon", model="virtio" if "balloon" in hardware.extras else "none")
    if "rng" in hardware.extras:
        rng = ET.SubElement(devices, "rng", model="virtio")
        _text(rng, "backend", "/dev/urandom", model="random")


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text
