"""OpenStack as a target: a shell script that uploads the images and creates volumes, ports and the server.

Sources: glance's "Useful image properties", nova's guides on UEFI, Secure Boot and emulated TPM, and the reference of
the command `openstack`.
"""

from __future__ import annotations

from collections.abc import Iterator

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.machine import Hardware, Plan
from hyper2kvmd.targets.machine_files import Form, NewMachine
from hyper2kvmd.targets.shell import BEGIN, PRELUDE, command, one_line, script, word

GIB = 1 << 30
FAMILY_TYPES = {"linux": "linux", "windows": "windows"}

HEAD = """
#!/bin/sh
# {description}
#
# Usage, with the credentials of the project in the environment (OS_CLOUD or an openrc file):
#   sh {name}.openstack.sh [--dry-run] FLAVOR{arguments}
#     --dry-run   print the commands, run nothing
#     FLAVOR      one with at least {vcpus} vCPUs and {memory} MiB of memory
{network}"""
NETWORK_LINE = "#     NETWORK     the network of cards that network_map does not name\n"
ARGUMENTS = """
usage='Usage: sh {name}.openstack.sh [--dry-run] FLAVOR{network}'
case $# in
{count}) ;;
*) fail "$usage" ;;
esac
flavor=$1
network=${{2-}}
"""
FUNCTIONS = """
# the volume's identifier, once its image is on it
volume_id() {
    if [ -n "$dry_run" ]; then
        printf 'ID-of-%s' "$1"
        return
    fi
    while :; do
        status=$(openstack volume show -f value -c status "$1")
        case $status in
        available) break ;;
        error*) fail "$1: the volume cannot be created. See openstack volume message list." ;;
        esac
        sleep 5
    done
    openstack volume show -f value -c id "$1"
}
"""
REFUSAL = """
if [ -z "$dry_run" ] && openstack server show {name} >/dev/null 2>&1; then
    fail '{name}: this project already has a server of that name. Rename or delete it.'
fi
"""


def create_script(machine: NewMachine) -> str:
    """The script that creates the server."""
    hardware, name = machine.hardware, machine.name
    open_network = any(nic.network is None for nic in hardware.nics)
    network = " NETWORK" if open_network else ""
    head = HEAD.format(
        description=one_line(machine.description),
        name=name,
        arguments=network,
        vcpus=hardware.vcpus,
        memory=hardware.memory,
        network=NETWORK_LINE if open_network else "",
    )
    arguments = ARGUMENTS.format(name=name, network=network, count=2 if open_network else 1)
    return script(
        head,
        PRELUDE,
        arguments,
        BEGIN,
        FUNCTIONS,
        REFUSAL.format(name=name),
        "\n".join(_images(machine)),
        "\n".join(_volumes(machine)),
        "\n".join(_ports(machine)),
        "\n".join(f"disk{number}=$(volume_id {name}-disk{number})" for number in range(1, len(machine.disks) + 1)),
        command(["run openstack server create", *_server(machine)]),
    )


def _disk(name: str, number: int) -> str:
    return f"{name}-disk{number + 1}"


def _images(machine: NewMachine) -> Iterator[str]:
    properties = [f"--property {word(f'{key}={value}')}" for key, value in _properties(machine)]
    for number, disk in enumerate(machine.disks):
        yield command(
            [
                "run openstack image create",
                f"--disk-format {machine.artifact.format} --container-format bare --file {disk.path.name}",
                *properties,
                _disk(machine.name, number),
            ]
        )


def _properties(machine: NewMachine) -> Iterator[tuple[str, str]]:
    """Nova takes them from the boot volume's image."""
    hardware, guest = machine.hardware, machine.guest
    yield "architecture", "x86_64"
    yield "hypervisor_type", "kvm"
    yield "vm_mode", "hvm"
    if guest.family in FAMILY_TYPES:
        yield "os_type", FAMILY_TYPES[guest.family]
    if guest.os_id:
        yield "os_distro", guest.os_id
    yield "hw_machine_type", hardware.machine
    yield "hw_disk_bus", hardware.disk_bus
    if hardware.disk_bus == "scsi":
        yield "hw_scsi_model", "virtio-scsi"
    yield "hw_vif_model", hardware.nic_model
    yield "hw_video_model", hardware.video
    yield from _firmware(hardware)
    if hardware.cores_per_socket:
        yield "hw_cpu_sockets", str(hardware.sockets)
        yield "hw_cpu_cores", str(hardware.cores_per_socket)
        yield "hw_cpu_threads", "1"
    if "agent" in hardware.extras:
        yield "hw_qemu_guest_agent", "yes"
    if "rng" in hardware.extras:
        yield "hw_rng_model", "virtio"


def _firmware(hardware: Hardware) -> Iterator[tuple[str, str]]:
    yield "hw_firmware_type", hardware.firmware
    if hardware.secure_boot:
        yield "os_secure_boot", "required"
    if hardware.tpm:
        yield "hw_tpm_version", "2.0"
        yield "hw_tpm_model", "tpm-crb"


def _volumes(machine: NewMachine) -> Iterator[str]:
    for number, disk in enumerate(machine.disks):
        name, gigabytes = _disk(machine.name, number), -(-disk.virtual_size // GIB)
        bootable = "--bootable" if number == machine.hardware.boot_disk else "--non-bootable"
        yield f"run openstack volume create --size {gigabytes} --image {name} {bootable} {name}"


def _ports(machine: NewMachine) -> Iterator[str]:
    for number, nic in enumerate(machine.hardware.nics, start=1):
        network = '"$network"' if nic.network is None else word(nic.network)
        state = "" if nic.connected else "--disable "
        yield f"run openstack port create --network {network} --mac-address {nic.mac} {state}{machine.name}-nic{number}"


def _server(machine: NewMachine) -> Iterator[str]:
    boot = machine.hardware.boot_disk
    yield '--flavor "$flavor"'
    yield f'--volume "$disk{boot + 1}"'
    for number in range(len(machine.disks)):
        if number != boot:
            yield f'--block-device uuid="$disk{number + 1}",source_type=volume,destination_type=volume,boot_index=-1'
    for number in range(1, len(machine.hardware.nics) + 1):
        yield f"--port {machine.name}-nic{number}"
    if not machine.hardware.nics:
        yield "--nic none"
    yield machine.name


def _examine(migration: Migration, plan: Plan) -> Iterator[Concern]:
    if plan.machine.uuid or plan.machine.serial:
        yield Concern(
            code="identity-not-kept",
            message=f"{migration.vm_name}: OpenStack assigns the SMBIOS UUID and serial number, and not the source's",
            hint="Check licences that are bound to them",
        )


OPENSTACK = Form({".openstack.sh": create_script}, _examine)
