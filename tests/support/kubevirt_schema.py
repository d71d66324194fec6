"""The part of KubeVirt's API that our files use, as types that know no other field.

From its OpenAPI description: the names, types and required fields of VirtualMachine (kubevirt.io/v1) and of a
DataVolume's specification (cdi.kubevirt.io/v1beta1).
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
Name = Annotated[str, StringConstraints(pattern=rf"^{LABEL}$")]
Quantity = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*(Mi|Gi)?$")]
Mac = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")]
Uuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Empty(Part):
    """An object whose presence is the value."""


class Metadata(Part):
    name: Name
    annotations: dict[str, str] = {}


class Switch(Part):
    enabled: bool | None = None


class Spinlocks(Switch):
    spinlocks: int = Field(ge=4096)


class Hyperv(Part):
    relaxed: Switch | None = None
    vapic: Switch | None = None
    spinlocks: Spinlocks | None = None
    vpindex: Switch | None = None
    runtime: Switch | None = None
    synic: Switch | None = None
    synictimer: Switch | None = None
    frequencies: Switch | None = None


class Features(Part):
    acpi: Switch
    apic: Switch
    smm: Switch | None = None
    hyperv: Hyperv | None = None


class Efi(Part):
    secure_boot: bool
    persistent: bool


class Bootloader(Part):
    bios: Empty | None = None
    efi: Efi | None = None


class Firmware(Part):
    uuid: Uuid | None = None
    serial: str | None = None
    bootloader: Bootloader


class Bus(Part):
    bus: Literal["virtio", "sata", "scsi", "usb"]


class Disk(Part):
    name: Name
    boot_order: int | None = Field(default=None, ge=1)
    disk: Bus


class Interface(Part):
    name: Name
    mac_address: Mac
    model: Literal["e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139", "virtio"]
    masquerade: Empty | None = None
    bridge: Empty | None = None


class Input(Part):
    name: Name
    type: Literal["tablet"]
    bus: Literal["usb", "virtio"]


class Tpm(Part):
    persistent: bool


class Devices(Part):
    disks: list[Disk]
    interfaces: list[Interface] = []
    inputs: list[Input] = []
    rng: Empty | None = None
    tpm: Tpm | None = None
    autoattach_pod_interface: bool | None = None
    autoattach_mem_balloon: bool | None = None


class MachineType(Part):
    type: Annotated[str, StringConstraints(pattern=r"^(pc-)?q35")]


class Cpu(Part):
    sockets: int = Field(ge=1)
    cores: int = Field(ge=1)
    threads: int = Field(ge=1)


class Memory(Part):
    guest: Quantity


class Timer(Part):
    present: bool | None = None
    tick_policy: Literal["delay", "catchup", "merge", "discard"] | None = None


class Timers(Part):
    hpet: Timer
    pit: Timer
    rtc: Timer
    hyperv: Timer | None = None


class Clock(Part):
    utc: Empty
    timer: Timers


class Domain(Part):
    machine: MachineType
    cpu: Cpu
    memory: Memory
    clock: Clock
    firmware: Firmware
    features: Features
    devices: Devices


class Multus(Part):
    network_name: Annotated[str, StringConstraints(pattern=rf"^({LABEL}/)?{LABEL}$")]


class Network(Part):
    name: Name
    pod: Empty | None = None
    multus: Multus | None = None


class Claim(Part):
    claim_name: Name


class DataVolume(Part):
    name: Name


class Volume(Part):
    name: Name
    persistent_volume_claim: Claim | None = None
    data_volume: DataVolume | None = None


class InstanceSpec(Part):
    domain: Domain
    networks: list[Network] = []
    volumes: list[Volume]


class Instance(Part):
    spec: InstanceSpec


class Source(Part):
    upload: Empty


class Requests(Part):
    storage: Quantity


class Resources(Part):
    requests: Requests


class Storage(Part):
    resources: Resources


class DataVolumeSpec(Part):
    source: Source
    storage: Storage


class DataVolumeTemplate(Part):
    metadata: Metadata
    spec: DataVolumeSpec


class Spec(Part):
    run_strategy: Literal["Always", "Halted", "Manual", "Once", "RerunOnFailure"]
    data_volume_templates: list[DataVolumeTemplate] = []
    template: Instance


class VirtualMachine(Part):
    api_version: Literal["kubevirt.io/v1"]
    kind: Literal["VirtualMachine"]
    metadata: Metadata
    spec: Spec


def faults(machine: VirtualMachine) -> list[str]:
    """What KubeVirt's admission refuses besides: names that must match, and devices that need others."""
    spec, found = machine.spec.template.spec, []
    devices, firmware = spec.domain.devices, spec.domain.firmware
    if [disk.name for disk in devices.disks] != [volume.name for volume in spec.volumes]:
        found.append("each disk needs a volume of its name")
    if [card.name for card in devices.interfaces] != [network.name for network in spec.networks]:
        found.append("each interface needs a network of its name")
    if sum(network.pod is not None for network in spec.networks) > 1:
        found.append("the pod network takes one interface")
    if any((card.masquerade is None) == (card.bridge is None) for card in devices.interfaces):
        found.append("each interface needs one binding")
    for card, network in zip(devices.interfaces, spec.networks, strict=True):
        if (card.masquerade is not None) != (network.pod is not None):
            found.append(f"{card.name}: masquerade is for the pod network")
    efi, smm = firmware.bootloader.efi, spec.domain.features.smm
    if efi is not None and efi.secure_boot and not (smm and smm.enabled):
        found.append("Secure Boot needs SMM")
    if (firmware.bootloader.bios is None) == (efi is None):
        found.append("one boot loader")
    templates = [template.metadata.name for template in machine.spec.data_volume_templates]
    if templates and templates != [volume.data_volume and volume.data_volume.name for volume in spec.volumes]:
        found.append("each data volume needs a template")
    if not all(re.fullmatch(LABEL, name) for name in templates):
        found.append("names of templates")
    return found
