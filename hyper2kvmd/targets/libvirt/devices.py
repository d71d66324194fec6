"""The devices of the domain XML."""

from __future__ import annotations

import string
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.machine import Hardware, HardwareNic
from hyper2kvmd.model.results import Artifact

DISK_NAMES = {"virtio": "vd", "scsi": "sd", "sata": "sd"}
CDROM_BUS = "sata"
"""Every guest has a driver for it."""
BRIDGE = "bridge:"
"""How a network begins that is a bridge of the host."""


def add_devices(devices: ET.Element, migration: Migration, hardware: Hardware, artifact: Artifact) -> None:
    _disks(devices, hardware, artifact, migration.libvirt_pool)
    if hardware.disk_bus == "scsi":
        ET.SubElement(devices, "controller", type="scsi", model="virtio-scsi")
    # without the element, libvirt adds a USB controller by itself
    ET.SubElement(devices, "controller", type="usb", model="qemu-xhci" if "usb" in hardware.extras else "none")
    for nic in hardware.nics:
        _interface(devices, nic, nic.network or migration.libvirt_network, hardware.nic_model)
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
        ET.SubElement(rng, "backend", model="random").text = "/dev/urandom"
    if hardware.tpm:
        tpm = ET.SubElement(devices, "tpm", model="tpm-crb")
        ET.SubElement(tpm, "backend", type="emulator", version="2.0")


def source_of(path: Path, pool: str | None) -> dict[str, str]:
    """The attributes of a disk's source: a volume of the pool, or the file."""
    return {"pool": pool, "volume": path.name} if pool else {"file": str(path)}


def _disks(devices: ET.Element, hardware: Hardware, artifact: Artifact, pool: str | None) -> None:
    names = {prefix: _names(prefix) for prefix in DISK_NAMES.values()}
    for number, published in enumerate(artifact.disks):
        disk = ET.SubElement(devices, "disk", type="volume" if pool else "file", device="disk")
        ET.SubElement(disk, "driver", name="qemu", type=artifact.format, discard="unmap")
        ET.SubElement(disk, "source", source_of(published.path, pool))
        ET.SubElement(disk, "backingStore")  # so libvirt follows no backing file of an image swapped in later
        name = next(names[DISK_NAMES[hardware.disk_bus]])
        ET.SubElement(disk, "target", dev=name, bus=hardware.disk_bus)
        if hardware.disk_bus == "scsi":
            # by the name alone, libvirt puts the sixteenth disk on a second controller, of another model
            ET.SubElement(disk, "address", type="drive", controller="0", bus="0", target="0", unit=str(number))
        if number == hardware.boot_disk:
            ET.SubElement(disk, "boot", order="1")
    for _ in range(hardware.cdroms):
        drive = ET.SubElement(devices, "disk", type="file", device="cdrom")
        ET.SubElement(drive, "target", dev=next(names[DISK_NAMES[CDROM_BUS]]), bus=CDROM_BUS)
        ET.SubElement(drive, "readonly")


def _names(prefix: str) -> Iterator[str]:
    """`vda` to `vdz`, `vdaa` and so on."""
    letters = string.ascii_lowercase
    yield from (prefix + letter for letter in letters)
    yield from (prefix + first + second for first in letters for second in letters)


def _interface(devices: ET.Element, nic: HardwareNic, network: str, model: str) -> None:
    bridge = network.removeprefix(BRIDGE) if network.startswith(BRIDGE) else None
    interface = ET.SubElement(devices, "interface", type="bridge" if bridge else "network")
    ET.SubElement(interface, "mac", address=nic.mac)
    ET.SubElement(interface, "source", {"bridge": bridge} if bridge else {"network": network})
    ET.SubElement(interface, "model", type=model)
    if not nic.connected:
        ET.SubElement(interface, "link", state="down")
