"""Machines with one of each kind of domain XML. `python -m tests.support.libvirt_machines` writes the golden files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hyper2kvmd.hardware import decide_hardware
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.guest import Capabilities, Guest, Nic
from hyper2kvmd.model.machine import Firmware
from hyper2kvmd.model.results import Artifact, PublishedDisk
from hyper2kvmd.targets.libvirt.domain import Hypervisor, Identity, domain_xml
from tests.support.benches import plan_for

GOLDEN = Path(__file__).parents[1] / "golden-libvirt"
MARK = "6f1dd28e-5a4b-5a1c-9d5e-0c6c5d0f7a11"
UUID = "564d1d2a-9f0e-4a3b-8c55-0123456789ab"
WITHOUT_DRIVERS = Capabilities(disk_bus="sata", nic_model="e1000e", rtc="localtime")
WINDOWS_7 = WITHOUT_DRIVERS.with_changes(extras=())
WINDOWS = WITHOUT_DRIVERS.with_changes(extras=("usb",))
ON_SCSI = Capabilities(disk_bus="scsi")


@dataclass(frozen=True)
class NewMachine:
    source: Mapping[str, object] = field(default_factory=dict)
    keys: Mapping[str, object] = field(default_factory=dict)
    guest: Guest = Guest(os_name="Debian GNU/Linux 12", nics=(Nic(name="ens192", mac="00:50:56:01:02:03"),))  # noqa: RUF009
    firmware: Firmware = "bios"
    disks: int = 1


def cards(*networks: str | None) -> tuple[Nic, ...]:
    return tuple(
        Nic(name=None, mac=f"00:50:56:aa:00:{number:02x}", network=network) for number, network in enumerate(networks)
    )


MACHINES: Mapping[str, NewMachine] = {
    "bios": NewMachine(),
    "uefi": NewMachine({"uuid": UUID, "memory": 4096, "vcpus": 4}, firmware="uefi"),
    "secure-boot-tpm": NewMachine(
        {
            "secure_boot": True,
            "tpm": True,
            "uuid": UUID,
            "serial": "VMware-56 4d 1d 2a, <'x'>",
            "genid": "0a1b2c3d-0000-4000-8000-00000000beef",
            "vcpus": 8,
            "cores_per_socket": 4,
            "cdroms": 1,
        },
        firmware="uefi",
    ),
    "windows": NewMachine(
        {"vcpus": 4, "cdroms": 2},
        {"machine": "pc"},
        Guest(family="windows", os_name="Windows Server 2022", nics=cards(None), capabilities=WINDOWS),
        disks=2,
    ),
    "windows-7": NewMachine(
        {}, {}, Guest(family="windows", os_name="Windows 7", nics=cards(None), capabilities=WINDOWS_7)
    ),
    "networks": NewMachine(
        {},
        {"libvirt_network": "other", "network_map": {"VM Network": "lan & <dmz>", "Backup": "bridge:br0"}},
        Guest(nics=(*cards("Backup", "VM Network"), Nic(name=None, mac="00:50:56:aa:00:02", connected=False))),
    ),
    "three-disks": NewMachine({}, {"out_format": "raw"}, Guest(nics=cards(None), boot_disk=1), disks=3),
    "sata": NewMachine({"cdroms": 4}, {}, Guest(nics=cards(None), capabilities=WITHOUT_DRIVERS), disks=26),
    "scsi": NewMachine({"cdroms": 1}, {}, Guest(nics=cards(None), capabilities=ON_SCSI), disks=17),
}


def xml_of_machine(name: str, hypervisor: Hypervisor = "kvm") -> str:
    machine = MACHINES[name]
    migration = Migration.model_validate({"vmdk": "/srv/web01.vmdk", "vm_name": name, **machine.keys})
    plan = plan_for((), Layout(tables=()), machine.firmware)
    plan = plan.with_changes(machine=plan.machine.with_changes(**machine.source))
    hardware = decide_hardware(migration, plan, machine.guest)
    paths = [Path("/srv/images") / file for file in migration.output_names(machine.disks)]
    artifact = Artifact(
        disks=tuple(PublishedDisk(path=path, file_bytes=1) for path in paths),
        format=migration.out_format,
        report_json=Path("/srv/images/r.json"),
        report_markdown=Path("/srv/images/r.md"),
    )
    identity = Identity(hardware.uuid or MARK, MARK)
    return domain_xml(migration, hardware, machine.guest, artifact, identity, hypervisor)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each in MACHINES:
        (GOLDEN / f"{each}.xml").write_text(xml_of_machine(each))
