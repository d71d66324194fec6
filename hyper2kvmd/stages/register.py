"""Owns the libvirt side: the domain XML beside the image and, when asked for, its definition.

An existing domain is never overwritten: ours carries a UUID made from the job and the image, and libvirt refuses a
second UUID for a name. What was defined is read back before it counts.
"""

from __future__ import annotations

import os
import string
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Literal

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host.destination import require_unshared
from hyper2kvmd.host.placing import Placing
from hyper2kvmd.host.run import Completed
from hyper2kvmd.model import (
    Artifact,
    Domain,
    Guest,
    Migration,
    Order,
    Source,
)
from hyper2kvmd.progress import Context
from hyper2kvmd.proof.machine import KVM_DEVICE, kvm_works
from hyper2kvmd.targets.libvirt.connection import Libvirt

Hypervisor = Literal["kvm", "qemu"]

DEFAULT_MACHINE = "q35"
NOTE = "registering.json"


def register(order: Order, source: Source, guest: Guest, artifact: Artifact, folder: Path, ctx: Context) -> Domain:
    """Write `<output_dir>/<vm_name>.xml`; with `libvirt_import`, define it and see that libvirt has it.

    `folder` is the job's own: libvirt gets the XML from there, since that of the output directory is its owner's to
    change. Raises MigrationFailed: `libvirt-unreachable`, `domain-exists`, `libvirt-define-failed` (libvirt's own
    reason in the message), `output-exists`, `xml-unwritable`, and Unsafe (`libvirt-uri-not-allowed`, `output-shared`,
    and as `output_of` does). Images and XML stay in any case.
    """
    migration, libvirt = order.migration, Libvirt.of(order)
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"hyper2kvmd:{order.job_id}:{artifact.disks[0].path}"))
    hypervisor = _hypervisor(libvirt, migration, ctx)
    xml = order.output_dir / f"{migration.vm_name}.xml"
    with ctx.step(f"Writing {xml.name}"):
        text = domain_xml(migration, source, guest, artifact, identity, hypervisor)
        own = folder / "domain.xml"
        own.write_text(text, encoding="utf-8")
        _place(order, xml, text, folder / NOTE)
    if migration.libvirt_import:
        require_unshared(order)
        with ctx.step(f"Defining {migration.vm_name} in libvirt"):
            _define(libvirt, migration.vm_name, identity, own, xml, artifact)
    return Domain(
        name=migration.vm_name,
        xml=xml,
        macs=tuple(nic.mac for nic in guest.nics),
        defined=migration.libvirt_import,
        uri=migration.libvirt_uri if migration.libvirt_import else None,
    )


def domain_exists(libvirt: Libvirt, name: str) -> bool:
    """Whether libvirt has a domain of that name, running or not.

    Raises MigrationFailed (`libvirt-unreachable`).
    """
    listed = libvirt.virsh("list", "--all", "--name")
    if listed.returncode != 0:
        raise MigrationFailed(
            "libvirt-unreachable",
            f"libvirt at {libvirt.uri} does not answer: {_reason(listed)}",
            hint=libvirt.remedy,
            kind=Kind.OPERATOR,
        )
    return name in listed.stdout.splitlines()


# ---------------------------------------------------------------- the XML


def domain_xml(
    migration: Migration, source: Source, guest: Guest, artifact: Artifact, identity: str, hypervisor: Hypervisor
) -> str:
    """The domain as libvirt's schema has it (libvirt.org, Domain XML format)."""
    domain = ET.Element("domain", type=hypervisor)
    _text(domain, "name", migration.vm_name)
    _text(domain, "uuid", identity)
    _text(domain, "description", f"{guest.os_name or 'Guest'}, migrated from {migration.vmdk[0].name} by hyper2kvmd")
    _text(domain, "memory", str(migration.memory), unit="MiB")
    _text(domain, "vcpu", str(migration.vcpus))
    _firmware(domain, migration, source)
    features = ET.SubElement(domain, "features")
    for feature in ("acpi", "apic"):
        ET.SubElement(features, feature)
    ET.SubElement(features, "vmport", state="off")
    # host-model follows the host and can still migrate live between hosts; emulation has only its own maximum
    ET.SubElement(domain, "cpu", mode="host-model" if hypervisor == "kvm" else "maximum")
    clock = ET.SubElement(domain, "clock", offset="localtime" if guest.family == "windows" else "utc")
    ET.SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    ET.SubElement(clock, "timer", name="pit", tickpolicy="delay")
    ET.SubElement(clock, "timer", name="hpet", present="no")
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(domain, event, action)
    _devices(ET.SubElement(domain, "devices"), migration, guest, artifact)
    ET.indent(domain)
    text: str = ET.tostring(domain, encoding="unicode")
    return f"{text}\n"


def _firmware(domain: ET.Element, migration: Migration, source: Source) -> None:
    uefi = source.firmware == "uefi" if migration.uefi is None else migration.uefi
    os_element = ET.SubElement(domain, "os", {"firmware": "efi"} if uefi else {})
    _text(os_element, "type", "hvm", arch="x86_64", machine=migration.machine or DEFAULT_MACHINE)
    if uefi:
        # a guest's own loader may be unsigned, and its keys stayed behind in VMware's NVRAM
        firmware = ET.SubElement(os_element, "firmware")
        ET.SubElement(firmware, "feature", enabled="no", name="secure-boot")


def _devices(devices: ET.Element, migration: Migration, guest: Guest, artifact: Artifact) -> None:
    for number, published in enumerate(artifact.disks):
        disk = ET.SubElement(devices, "disk", type="file", device="disk")
        ET.SubElement(disk, "driver", name="qemu", type=artifact.format, discard="unmap")
        ET.SubElement(disk, "source", file=str(published.path))
        ET.SubElement(disk, "backingStore")  # an image swapped for one with a backing file leads libvirt nowhere
        ET.SubElement(disk, "target", dev=f"vd{string.ascii_lowercase[number]}", bus="virtio")
        if number == 0:
            ET.SubElement(disk, "boot", order="1")
    ET.SubElement(devices, "controller", type="usb", model="qemu-xhci")
    for nic in guest.nics:
        interface = ET.SubElement(devices, "interface", type="network")
        ET.SubElement(interface, "mac", address=nic.mac)
        ET.SubElement(interface, "source", network=migration.libvirt_network)
        ET.SubElement(interface, "model", type="virtio")
    for port, kind in (("serial", {}), ("console", {"type": "serial"})):
        element = ET.SubElement(devices, port, type="pty")
        ET.SubElement(element, "target", {**kind, "port": "0"})
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    ET.SubElement(devices, "input", type="tablet", bus="usb")
    ET.SubElement(devices, "graphics", type="vnc", autoport="yes", listen="127.0.0.1")
    video = ET.SubElement(devices, "video")
    ET.SubElement(video, "model", type="vga")  # every guest has a driver for it
    ET.SubElement(devices, "memballoon", model="virtio")
    rng = ET.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text


def _place(order: Order, xml: Path, text: str, note: Path) -> None:
    try:
        with Placing(order, note) as placing:
            if not placing.holds(xml.name, text):
                placing.write(xml.name, text)
    except OSError as error:
        raise MigrationFailed(
            "xml-unwritable",
            f"the domain XML {xml} cannot be written: {error.strerror}",
            hint="correct the directory's owner, mode or free space, then retry",
            kind=Kind.OPERATOR,
        ) from error


# ---------------------------------------------------------------- libvirt


def _hypervisor(libvirt: Libvirt, migration: Migration, ctx: Context) -> Hypervisor:
    """KVM, unless the libvirt that is to run this guest cannot: such a domain would never start."""
    if not migration.libvirt_import:
        return "kvm"
    offered = libvirt.virsh("domcapabilities", "--virttype", "kvm", "--arch", "x86_64").returncode == 0
    local = ":///" in libvirt.uri
    if offered and not (local and os.access(KVM_DEVICE, os.R_OK | os.W_OK) and not kvm_works()):
        return "kvm"
    uri = libvirt.uri
    ctx.warn(f"KVM does not work for libvirt at {uri}: {migration.vm_name} is defined to run under slow emulation")
    return "qemu"


def _define(libvirt: Libvirt, name: str, identity: str, own: Path, xml: Path, artifact: Artifact) -> None:
    """Define the domain from our `own` copy; `xml` is the one that the messages name."""
    existed = domain_exists(libvirt, name)
    if existed:
        if libvirt.virsh("domuuid", name).stdout.strip() != identity:
            raise MigrationFailed(
                "domain-exists",
                f"libvirt at {libvirt.uri} already has a domain {name}; the images and {xml} are kept",
                hint=f"rename the old one (virsh domrename) or undefine it, then run virsh define {xml}",
                kind=Kind.OPERATOR,
            )
    else:
        defined = libvirt.virsh("define", "--validate", str(own))
        if defined.returncode != 0:
            raise _define_failed(libvirt.uri, name, _reason(defined), xml)
    shown = libvirt.virsh("dumpxml", "--inactive", name)
    if shown.returncode != 0:
        raise _define_failed(libvirt.uri, name, _reason(shown), xml)
    disks = [element.get("file") for element in ET.fromstring(shown.stdout).iterfind("devices/disk/source")]  # noqa: S314
    ours = [str(disk.path) for disk in artifact.disks]
    if disks != ours:
        if not existed:
            libvirt.virsh("undefine", name)
        raise _define_failed(libvirt.uri, name, f"its disks are {disks} there, not {ours}", xml)


def _define_failed(uri: str, name: str, reason: str, xml: Path) -> MigrationFailed:
    return MigrationFailed(
        "libvirt-define-failed",
        f"libvirt at {uri} does not take the domain {name}: {reason}; the images and {xml} are kept",
        hint=f"correct what libvirt names, then run virsh --connect {uri} define {xml}",
        kind=Kind.OPERATOR,
    )


def _reason(completed: Completed) -> str:
    lines = [line.removeprefix("error: ").strip() for line in completed.stderr.splitlines() if line.strip()]
    told = lines[1:] or lines  # the first line only says which command failed
    return " / ".join(told) or f"virsh ended with status {completed.returncode}"
