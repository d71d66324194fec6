"""Machines for the targets: one of each kind that they describe in a different way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Hardware, HardwareNic
from hyper2kvmd.model.results import Artifact, PublishedDisk
from hyper2kvmd.targets.kubevirt import KUBEVIRT
from hyper2kvmd.targets.machine_files import Form, NewMachine
from hyper2kvmd.targets.openstack import OPENSTACK
from hyper2kvmd.targets.proxmox import PROXMOX
from hyper2kvmd.targets.qemu import QEMU

FORMS: Mapping[str, Form] = {"qemu": QEMU, "proxmox": PROXMOX, "kubevirt": KUBEVIRT, "openstack": OPENSTACK}
GIB = 1 << 30
UUID = "564d1d2a-9f0e-4a3b-8c55-0123456789ab"


def new_machine(
    name: str, hardware: Hardware, guest: Guest, *sizes: int, folder: Path = Path("/srv/images")
) -> NewMachine:
    """A machine with disks of these sizes."""
    names = [f"{name}.qcow2", *(f"{name}-disk{number}.qcow2" for number in range(2, len(sizes) + 1))]
    disks = tuple(
        PublishedDisk(path=folder / file, file_bytes=1, virtual_size=size)
        for file, size in zip(names, sizes, strict=True)
    )
    artifact = Artifact(disks=disks, format="qcow2", report_json=folder / "r.json", report_markdown=folder / "r.md")
    return NewMachine(name=name, hardware=hardware, guest=guest, artifact=artifact)


DEBIAN = Guest(os_id="debian", os_name="Debian GNU/Linux 12 (bookworm)")
MACHINES: Mapping[str, NewMachine] = {
    "bios": new_machine(
        "web01",
        Hardware(firmware="bios", machine="q35", memory=2048, vcpus=2, nics=(HardwareNic(mac="00:50:56:01:02:03"),)),
        DEBIAN,
        8 * GIB,
    ),
    "uefi-two-disks": new_machine(
        "db_Main.Example",
        Hardware(
            firmware="uefi",
            machine="q35",
            memory=4096,
            vcpus=4,
            cores_per_socket=2,
            nics=(HardwareNic(mac="52:54:00:01:02:04"),),
            boot_disk=1,
            uuid=UUID,
            serial="VMware-56 4d 1d 2a, 'x'",
        ),
        DEBIAN,
        20 * GIB + 512,
        100 * GIB,
    ),
    "secure-boot-tpm-three-cards": new_machine(
        "vault",
        Hardware(
            firmware="uefi",
            secure_boot=True,
            tpm=True,
            machine="q35",
            memory=8192,
            vcpus=8,
            cores_per_socket=8,
            nics=(
                HardwareNic(mac="00:50:56:aa:00:01", network="lan"),
                HardwareNic(mac="00:50:56:aa:00:02"),
                HardwareNic(mac="00:50:56:aa:00:03", network="dmz", connected=False),
            ),
            cdroms=1,
            uuid=UUID,
            genid="0a1b2c3d-0000-4000-8000-00000000beef",
        ),
        Guest(os_id="rhel", os_name="Red Hat Enterprise Linux 9.4"),
        40 * GIB,
    ),
    "windows": new_machine(
        "win",
        Hardware(
            firmware="uefi",
            machine="q35",
            memory=8192,
            vcpus=4,
            cores_per_socket=4,
            nics=(HardwareNic(mac="00:50:56:bb:00:01"),),
            disk_bus="sata",
            nic_model="e1000e",
            rtc="localtime",
            extras=("usb",),
            hyperv=True,
        ),
        Guest(family="windows", os_name="Windows Server 2022"),
        60 * GIB,
        200 * GIB,
    ),
    "windows-scsi": new_machine(
        "win",
        Hardware(
            firmware="bios",
            machine="q35",
            memory=8192,
            vcpus=4,
            cores_per_socket=4,
            nics=(HardwareNic(mac="00:50:56:bb:00:01"),),
            disk_bus="scsi",
            boot_disk=1,
            extras=("usb", "agent", "balloon"),
            hyperv=True,
        ),
        Guest(family="windows", os_name="Windows Server 2012 R2"),
        60 * GIB,
        200 * GIB,
    ),
}
