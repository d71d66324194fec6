"""Concerns about a machine's settings: devices that the new machine does not have, and settings that are unclear."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hyper2kvmd.machines.vmx.drives import NO_FILE, Drive, floppies_of
from hyper2kvmd.machines.vmx.hardware import cores_of, memory_of, serial_of, uuid_of, vcpus_of
from hyper2kvmd.machines.vmx.nics import MAX_NICS, address_key, read_nics
from hyper2kvmd.machines.vmx.settings import FALSE, Settings
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.yaml_source import shown

MAX_SHOWN = 3
PASSTHROUGH = re.compile(r"(pcipassthru[0-9]{1,3})\.present")
PORT = re.compile(r"((?:serial|parallel)[0-9]{1,2})\.present")
USB = re.compile(r"usb\.autoconnect\.device[0-9]{1,3}")
FAULT_TOLERANCE = re.compile(r"faulttolerance(?:\..+)?|ftcpt\.(?!ftencryptionmode$).+")
"""vSphere writes the mode of encryption to every machine."""
TRACKING = re.compile(r"(?:.+\.)?ctkenabled")
RESERVED_UNIT = 7
"""The SCSI controller's own."""
SHARED_BUSES = ("virtual", "physical")


def concerns_about(vmx: Path, settings: Settings, drives: Sequence[Drive]) -> Iterator[Concern]:
    for found in (
        _unclear_settings(settings),
        _passed_through(settings),
        _services(settings),
        _about_drives(settings, drives),
    ):
        for concern in found:
            yield concern.with_changes(message=f"{vmx}: {concern.message}")


def _unclear_settings(settings: Settings) -> Iterator[Concern]:
    if settings.repeated:
        keys = _listed(settings.repeated)
        yield Concern(
            code="setting-repeated",
            message=f"it has several values of {keys}, of which the last one is used",
            hint="Remove the outdated lines",
        )
    vcpus = vcpus_of(settings)
    values = {
        "memSize": memory_of(settings),
        "numvcpus": vcpus,
        "cpuid.coresPerSocket": vcpus and cores_of(settings, vcpus),
        "uuid.bios": uuid_of(settings),
    }
    for key, value in values.items():
        if settings.text(key) and value is None:
            yield _unusable(key, settings.text(key))
    for number in range(MAX_NICS):
        card = f"ethernet{number}."
        key = card + address_key(settings, card)
        if settings.flag(card + "present") and settings.text(key) and not _has_mac(settings, number):
            yield _unusable(key, settings.text(key))
    if settings.text("uuid.bios") and serial_of(settings) is None:
        yield Concern(
            code="serial-unknown",
            message="its serial number is that of its ESXi host, or in a form that is not known",
            hint="If software in the guest is licensed to it, set it in the new machine",
            level="information",
        )


def _has_mac(settings: Settings, number: int) -> bool:
    before = sum(settings.flag(f"ethernet{other}.present") for other in range(number))
    return read_nics(settings)[before].mac is not None


def _unusable(key: str, value: str) -> Concern:
    return Concern(
        code="setting-unusable",
        message=f"{key} is {shown(value)}, which cannot be used",
        hint="Correct the .vmx, or set the value in the migration",
    )


def _passed_through(settings: Settings) -> Iterator[Concern]:
    cards = [match[1] for match in map(PASSTHROUGH.fullmatch, settings.values) if match and settings.flag(match[0])]
    graphics = [one for one in cards if settings.text(f"{one}.vgpu") or settings.text(f"{one}.virtualdev") == "vmiop"]
    others = [one for one in cards if one not in graphics]
    if graphics:
        yield Concern(
            code="vgpu-not-migrated",
            message=f"it has a virtual GPU ({_listed(graphics)}), which the new machine does not have",
            hint="Assign a mediated device or a GPU of the KVM host to the new machine",
        )
    if others:
        yield Concern(
            code="pci-not-migrated",
            message=f"it has PCI devices of its ESXi host ({_listed(others)}), which the new machine does not have",
            hint="Assign such devices of the KVM host to the new machine with `virsh edit`",
        )
    usb = [key for key, value in settings.values.items() if USB.fullmatch(key) and value.strip()]
    if usb:
        yield Concern(
            code="usb-not-migrated",
            message=f"it has USB devices of its host ({len(usb)}), which the new machine does not have",
            hint="Plug them into the KVM host, and assign them with `virsh attach-device`",
        )
    ports = [match[1] for match in map(PORT.fullmatch, settings.values) if match and settings.flag(match[0])]
    if ports:
        yield Concern(
            code="port-not-migrated",
            message=f"it has serial or parallel ports ({_listed(ports)}), which are not connected on the new machine",
            hint="Connect a serial port of the new machine with `virsh edit`, if a program in the guest needs it",
            level="information",
        )


def _services(settings: Settings) -> Iterator[Concern]:
    if any(FAULT_TOLERANCE.fullmatch(key) and _is_on(value) for key, value in settings.values.items()):
        yield Concern(
            code="fault-tolerance-ends",
            message="it is protected by vSphere Fault Tolerance, which the new machine does not have",
            hint="Turn off Fault Tolerance before the export, and name the files of the primary machine",
        )
    if any(TRACKING.fullmatch(key) and _is_on(value) for key, value in settings.values.items()):
        yield Concern(
            code="block-tracking-ends",
            message="its backup software tracks changed blocks, which ends with the migration",
            hint="Begin with a full backup of the new machine",
            level="information",
        )
    floppies = floppies_of(settings)
    if floppies:
        yield Concern(
            code="floppy-not-migrated",
            message=f"it has floppy drives ({floppies}), which the new machine does not have",
            hint="Copy files that the guest needs from its floppy disks to its hard disk before the migration",
            level="information",
        )


def _about_drives(settings: Settings, drives: Sequence[Drive]) -> Iterator[Concern]:
    for drive in drives:
        name, file = drive.name, shown(drive.file)
        if drive.kind == "other" or (drive.kind == "disk" and drive.file.lower() in NO_FILE):
            yield Concern(
                code="drive-not-migrated",
                message=f"{name} ({file or 'without a file'}) is neither a virtual disk nor an optical drive",
                hint="Assign the device to the new machine, if the guest needs it",
            )
        elif drive.kind == "disk":
            yield from _about_disk(settings, drive)


def _about_disk(settings: Settings, drive: Drive) -> Iterator[Concern]:
    name, file = drive.name, shown(drive.file)
    if not drive.is_certain:
        fact = f"it names the disk {file} of {name}, but not whether it is present: the disk is migrated"
        yield Concern(code="drive-doubtful", message=fact, hint="Check that the disk belongs to the machine")
    if drive.address.bus == "scsi" and drive.address.unit == RESERVED_UNIT:
        fact = f"it has a disk at {name}, a place that VMware reserves for the controller: the disk is migrated"
        yield Concern(code="drive-doubtful", message=fact, hint="Check that the disk belongs to the machine")
    if drive.mode == "independent-nonpersistent":
        yield Concern(
            code="disk-nonpersistent",
            message=f"{name} ({file}) loses its changes when the machine is powered off; the new machine keeps them",
            hint="Add `<transient/>` to the disk with `virsh edit`, if the changes are to be lost there as well",
        )
    elif drive.is_independent:
        yield Concern(
            code="disk-independent",
            message=f"{name} ({file}) is independent: it is in no snapshot, and is migrated as it is now",
            hint="Check that its content fits that of the other disks",
            level="information",
        )
    controller = drive.name.partition(":")[0]
    bus, sharing = settings.text(f"{controller}.sharedbus").lower(), settings.text(f"{name}.sharing").lower()
    if bus in SHARED_BUSES or "multi" in sharing:
        yield Concern(
            code="disk-shared",
            message=f"{name} ({file}) can be used by several machines at once: the new machine gets a copy of its own",
            hint="Power off all of them before the export, and give only one the copy, or share it on the new host",
        )


def _is_on(value: str) -> bool:
    return value.strip().lower() not in ("", *FALSE)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(shown(name) for name in names[:MAX_SHOWN]) + more
