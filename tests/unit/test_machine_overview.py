"""The words for the new machine: in the plan, the log and the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from hyper2kvmd.hardware import decide_hardware
from hyper2kvmd.machine_overview import LATER, MachineOverview, overview, planned_overview
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import FileIdentity, Layout, LocalFile, SourceDisk
from hyper2kvmd.model.guest import Capabilities, Guest, Nic
from hyper2kvmd.model.machine import DiskAddress, Machine, MachineDisk, Plan
from tests.support.benches import plan_for

GIB = 1 << 30
UUID = "564d1d2a-9f0e-4a3b-8c55-0123456789ab"
PLACES = (DiskAddress(bus="scsi", controller=0, unit=1), None)
DISKS = tuple(
    SourceDisk(
        at=LocalFile(path=Path(path)),
        subformat="monolithicFlat",
        virtual_size=20 * GIB,
        data_bytes=GIB,
        files=(FileIdentity(path=Path(path), device=1, inode=1, size=1, mtime_ns=1, ctime_ns=1),),
    )
    for path in ("/a.vmdk", "/b.vmdk")
)
LINUX = Guest(
    boot_disk=1,
    nics=(
        Nic(name="ens192", mac="00:50:56:00:00:01", network="LAN"),
        Nic(name=None, mac="52:54:00:00:00:02", mac_is_new=True),
    ),
)


def planned(source: Mapping[str, object]) -> Plan:
    pairs = zip(DISKS, PLACES, strict=True)
    machine = Machine(disks=tuple(MachineDisk(at=disk.at, address=place) for disk, place in pairs))
    return plan_for(DISKS, Layout(tables=("none", "none"))).with_changes(machine=machine.with_changes(**source))


def asked(**keys: object) -> Migration:
    return Migration.model_validate({"vmdk": "/a.vmdk", "vm_name": "web01", **keys})


def seen(source: Mapping[str, object], guest: Guest = LINUX, /, **keys: object) -> MachineOverview:
    migration, plan = asked(**keys), planned(source)
    return overview(migration, plan, decide_hardware(migration, plan, guest), guest)


@pytest.mark.parametrize(
    ("fact", "source", "keys", "text"),
    [
        ("name", {"name": "Web Server 01"}, {}, "web01 (source: Web Server 01)"),
        ("name", {"name": "web01"}, {}, "web01"),
        ("name", {}, {}, "web01"),
        ("CPUs", {}, {}, "2 (default)"),
        ("CPUs", {"vcpus": 4, "cores_per_socket": 2}, {}, "4: 2 sockets of 2 cores"),
        ("CPUs", {"vcpus": 4}, {}, "4"),
        ("CPUs", {"vcpus": 4, "cores_per_socket": 4}, {"vcpus": 1}, "1 (source: 4: 1 socket of 4 cores)"),
        ("memory", {}, {}, "2.0 GiB (default)"),
        ("memory", {"memory": 2048}, {}, "2.0 GiB"),
        ("memory", {"memory": 8192}, {"memory": 512}, "512.0 MiB (source: 8.0 GiB)"),
        ("machine type", {}, {"machine": "pc"}, "pc"),
        ("firmware", {}, {}, "BIOS"),
        ("firmware", {"firmware": "uefi"}, {}, "BIOS (source: UEFI)"),
        ("Secure Boot", {}, {}, "off"),
        ("Secure Boot", {"secure_boot": True}, {}, "off (source: on)"),
        ("TPM", {"tpm": True}, {}, "2.0"),
        ("TPM", {"tpm": True}, {"tpm": False}, "none (source: 2.0)"),
        ("UUID", {}, {}, "new"),
        ("UUID", {"uuid": UUID}, {}, f"{UUID} (kept)"),
        ("UUID", {"uuid": UUID}, {"target": "openstack"}, f"new (source: {UUID})"),
        ("CD-ROM drives", {}, {}, "none"),
        ("CD-ROM drives", {"cdroms": 2}, {}, "2, empty"),
        ("CD-ROM drives", {"cdroms": 6}, {}, "4, empty (source: 6)"),
        *(("CD-ROM drives", {"cdroms": 1}, {"target": one}, "none (source: 1)") for one in ("kubevirt", "openstack")),
        ("serial number", {"serial": "VMware-1"}, {}, "VMware-1 (kept)"),
        ("serial number", {"serial": "VMware-1"}, {"target": "kubevirt"}, "VMware-1 (kept)"),
        ("serial number", {"serial": "VMware-1"}, {"target": "openstack"}, "new (source: VMware-1)"),
        ("VM generation ID", {"genid": UUID}, {}, f"{UUID} (kept)"),
        *(
            ("VM generation ID", {"genid": UUID}, {"target": one}, f"none (source: {UUID})")
            for one in ("kubevirt", "openstack")
        ),
    ],
)
def test_facts(fact: str, source: Mapping[str, object], keys: Mapping[str, object], text: str) -> None:
    assert dict(seen(source, LINUX, **keys).facts)[fact] == text


def test_disks_are_in_their_order_with_bus_size_and_image() -> None:
    sata = LINUX.with_changes(capabilities=Capabilities(disk_bus="sata", nic_model="e1000e"))
    shown = seen({}, sata, resize=["+0", "+10G"])
    assert shown.disks == (
        ("1", "", "scsi0:1 -> sata", "20.0 GiB", "web01.qcow2"),
        ("2", "yes", "sata", "30.0 GiB", "web01-disk2.qcow2"),
    )
    assert {card[2] for card in shown.cards} == {"e1000e"}
    assert {disk[1] for disk in seen({}, Guest(family="none")).disks} == {""}


def test_cards_show_whether_an_address_is_kept_and_both_networks() -> None:
    assert seen({}).cards == (
        ("1", "00:50:56:00:00:01 (kept)", "virtio", "ens192", "LAN -> default"),
        ("2", "52:54:00:00:00:02 (new)", "virtio", "", "default"),
    )
    mapped = seen({}, network_map={"LAN": "bridge:br0"}, libvirt_network="nat")
    assert [card[-1] for card in mapped.cards] == ["LAN -> bridge:br0", "nat"]
    assert seen({}, target="qemu").cards[1][-1] == "the target's default"


@pytest.mark.parametrize(
    ("target", "network"), [("libvirt", "default (not connected)"), ("qemu", "the target's default")]
)
def test_a_card_that_is_not_connected(target: str, network: str) -> None:
    card = Nic(name=None, mac="52:54:00:00:00:02", connected=False)
    assert [one[-1] for one in seen({}, Guest(nics=(card,)), target=target).cards] == [network]


def test_what_a_guest_decides_is_open_until_it_was_inspected() -> None:
    plan = planned({"nics": ({"mac": "00:50:56:00:00:01", "network": "LAN"}, {"mac": None})})
    shown = planned_overview(asked(), plan)
    assert [disk[1:3] for disk in shown.disks] == [("", f"scsi0:1 -> {LATER}"), ("", LATER)]
    assert shown.cards == (
        ("1", "00:50:56:00:00:01 (kept)", LATER, "", "LAN -> default"),
        ("2", LATER, LATER, "", "default"),
    )
    assert [card[1] for card in planned_overview(asked(), planned({})).cards] == [LATER]
    assert planned_overview(asked(), plan.with_changes(guest=LINUX)) == seen({"nics": plan.machine.nics})


def test_the_log_has_a_line_for_the_machine_and_each_device() -> None:
    first, *devices = seen({"name": "Web Server 01"}).lines()
    assert first.startswith("name: web01 (source: Web Server 01); CPUs: 2 (default); memory: 2.0 GiB (default);")
    assert devices == [
        "disk 1: scsi0:1 -> virtio, 20.0 GiB, web01.qcow2",
        "disk 2: boots, virtio, 20.0 GiB, web01-disk2.qcow2",
        "network card 1: MAC address 00:50:56:00:00:01 (kept), virtio, ens192, LAN -> default",
        "network card 2: MAC address 52:54:00:00:00:02 (new), virtio, default",
    ]
