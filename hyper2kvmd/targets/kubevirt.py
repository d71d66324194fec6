"""KubeVirt as a target: a VirtualMachine on volume claims that exist, and the same one with claims to upload to.

Sources: KubeVirt's API reference (kubevirt.io/api-reference), its user guide, and that of the Containerized Data
Importer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.hardware import decide_machine_type, network_for
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.machine import Hardware, Plan
from hyper2kvmd.targets.machine_files import Form, NewMachine
from hyper2kvmd.targets.shell import one_line

LONGEST_NAME, LONGEST_SUFFIX = 63, len("-disk26")
GIB = 1 << 30
ENLIGHTENMENTS = ("relaxed", "vapic", "vpindex", "runtime", "synic", "synictimer", "frequencies")
"""Hyper-V's interfaces, as KubeVirt names them."""

CLAIMS = """
# {description}
#
# Its volume claims have to exist first. For example, with virtctl and the images in the current directory:
{uploads}
# Then: kubectl apply -f {file}
"""
UPLOADS = """
# {description}
#
# It has a data volume for each disk. Upload the images after `kubectl apply -f {file}`:
{uploads}
# The machine can be started when the uploads are finished.
"""


def rfc1123(name: str) -> str:
    """The name in Kubernetes' alphabet, short enough for the name of each disk's claim."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[: LONGEST_NAME - LONGEST_SUFFIX].strip("-")


def on_claims(machine: NewMachine) -> str:
    """The machine on volume claims that have the names of its disks."""
    uploads = (
        f"#   virtctl image-upload dv {_claim(machine, number)} --size={-(-disk.virtual_size // GIB)}Gi "
        f"--image-path={disk.path.name}"
        for number, disk in enumerate(machine.disks)
    )
    volumes = [
        {"name": _disk(number), "persistentVolumeClaim": {"claimName": _claim(machine, number)}}
        for number in range(len(machine.disks))
    ]
    head = CLAIMS.format(
        description=one_line(machine.description), uploads="\n".join(uploads), file=f"{machine.name}.kubevirt.yaml"
    )
    return head.lstrip("\n") + _yaml(_virtual_machine(machine, volumes))


def on_uploads(machine: NewMachine) -> str:
    """The machine with data volumes that wait for their images."""
    uploads = (
        f"#   virtctl image-upload dv {_claim(machine, number)} --no-create --image-path={disk.path.name}"
        for number, disk in enumerate(machine.disks)
    )
    volumes = [
        {"name": _disk(number), "dataVolume": {"name": _claim(machine, number)}} for number in range(len(machine.disks))
    ]
    head = UPLOADS.format(
        description=one_line(machine.description),
        uploads="\n".join(uploads),
        file=f"{machine.name}.kubevirt-upload.yaml",
    )
    described = _virtual_machine(machine, volumes)
    described["spec"] = {"dataVolumeTemplates": list(_templates(machine)), **described["spec"]}
    return head.lstrip("\n") + _yaml(described)


def _yaml(value: object) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
    return text


def _disk(number: int) -> str:
    return f"disk{number + 1}"


def _claim(machine: NewMachine, number: int) -> str:
    return f"{rfc1123(machine.name)}-{_disk(number)}"


def _virtual_machine(machine: NewMachine, volumes: list[dict[str, Any]]) -> dict[str, Any]:
    hardware = machine.hardware
    networks = [_network(number, hardware) for number in range(len(hardware.nics))]
    spec = {"domain": _domain(machine), "networks": networks, "volumes": volumes}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": rfc1123(machine.name), "annotations": {"description": one_line(machine.description)}},
        "spec": {"runStrategy": "Halted", "template": {"spec": {key: value for key, value in spec.items() if value}}},
    }


def _domain(machine: NewMachine) -> dict[str, Any]:
    hardware = machine.hardware
    return {
        "machine": {"type": hardware.machine},
        "cpu": {
            "sockets": hardware.sockets or hardware.vcpus,
            "cores": hardware.cores_per_socket or 1,
            "threads": 1,
        },
        "memory": {"guest": f"{hardware.memory}Mi"},
        "clock": _clock(hardware),
        "firmware": _firmware(hardware),
        "features": _features(hardware),
        "devices": _devices(machine),
    }


def _clock(hardware: Hardware) -> dict[str, Any]:
    """KubeVirt has no clock in local time but that of a named zone."""
    timers: dict[str, Any] = {
        "hpet": {"present": False},
        "pit": {"tickPolicy": "delay"},
        "rtc": {"tickPolicy": "catchup"},
    }
    if hardware.hyperv:
        timers["hyperv"] = {"present": True}
    return {"utc": {}, "timer": timers}


def _firmware(hardware: Hardware) -> dict[str, Any]:
    """`secureBoot` is always written: without it, KubeVirt takes UEFI as UEFI with Secure Boot."""
    efi = {"efi": {"secureBoot": hardware.secure_boot, "persistent": True}}
    identity = {"uuid": hardware.uuid, "serial": hardware.serial}
    return {
        **{key: value for key, value in identity.items() if value},
        "bootloader": efi if hardware.firmware == "uefi" else {"bios": {}},
    }


def _features(hardware: Hardware) -> dict[str, Any]:
    features: dict[str, Any] = {"acpi": {}, "apic": {}}
    if hardware.secure_boot:
        features["smm"] = {"enabled": True}
    if hardware.hyperv:
        features["hyperv"] = {**{name: {} for name in ENLIGHTENMENTS}, "spinlocks": {"spinlocks": 8191}}
    return features


def _devices(machine: NewMachine) -> dict[str, Any]:
    hardware = machine.hardware
    devices: dict[str, Any] = {
        "disks": [
            {
                "name": _disk(number),
                **({"bootOrder": 1} if number == hardware.boot_disk else {}),
                "disk": {"bus": hardware.disk_bus},
            }
            for number in range(len(machine.disks))
        ]
    }
    if hardware.nics:
        devices["interfaces"] = [_interface(number, hardware) for number in range(len(hardware.nics))]
    else:
        devices["autoattachPodInterface"] = False
    if "usb" in hardware.extras:
        devices["inputs"] = [{"name": "tablet", "type": "tablet", "bus": "usb"}]
    if "rng" in hardware.extras:
        devices["rng"] = {}
    if "balloon" not in hardware.extras:
        devices["autoattachMemBalloon"] = False
    if hardware.tpm:
        devices["tpm"] = {"persistent": True}
    return devices


def _interface(number: int, hardware: Hardware) -> dict[str, Any]:
    nic = hardware.nics[number]
    binding = "masquerade" if _is_on_pod_network(number, hardware) else "bridge"
    return {"name": f"net{number + 1}", "macAddress": nic.mac, "model": hardware.nic_model, binding: {}}


def _network(number: int, hardware: Hardware) -> dict[str, Any]:
    name, nic = f"net{number + 1}", hardware.nics[number]
    if _is_on_pod_network(number, hardware):
        return {"name": name, "pod": {}}
    return {"name": name, "multus": {"networkName": nic.network or name}}


def _is_on_pod_network(number: int, hardware: Hardware) -> bool:
    """The first card without a network of its own: a pod network has one card."""
    unmapped = [position for position, nic in enumerate(hardware.nics) if nic.network is None]
    return unmapped[:1] == [number]


def _templates(machine: NewMachine) -> Iterator[dict[str, Any]]:
    for number, disk in enumerate(machine.disks):
        yield {
            "metadata": {
                "name": _claim(machine, number),
                # else the upload waits for a pod that uses the volume
                "annotations": {"cdi.kubevirt.io/storage.bind.immediate.requested": "true"},
            },
            "spec": {
                "source": {"upload": {}},
                "storage": {"resources": {"requests": {"storage": str(disk.virtual_size)}}},
            },
        }


def _examine(migration: Migration, plan: Plan) -> Iterator[Concern]:
    """Raises MigrationFailed (`hardware-unsupported`)."""
    name, machine = migration.vm_name, decide_machine_type(migration)
    if "q35" not in machine:
        raise MigrationFailed(
            "hardware-unsupported",
            f"{name}: KubeVirt has the machine type q35 only, not {machine}",
            hint="Remove machine:, or set it to q35",
            kind=Kind.OPERATOR,
        )
    if rfc1123(name) != name:
        yield Concern(
            code="name-changed",
            message=f"{name} is not a valid name in Kubernetes: the machine's name there is {rfc1123(name)}",
            hint="Set vm_name to at most 56 lower-case letters, digits and hyphens if you want another one",
        )
    unmapped = [nic for nic in plan.machine.nics if network_for(migration, nic.network) is None]
    if len(unmapped) > 1:
        yield Concern(
            code="pod-network-full",
            message=f"{len(unmapped)} network cards of {name} have no network in network_map, and only one can be on "
            "the pod network",
            hint="Add the others to network_map. Otherwise create the networks that the YAML names for them",
        )


KUBEVIRT = Form({".kubevirt.yaml": on_claims, ".kubevirt-upload.yaml": on_uploads}, _examine)
