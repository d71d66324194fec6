"""The new machine: what is asked for goes before what the source had, and that before the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.hardware import decide_hardware
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.guest import Capabilities, Guest, Nic
from hyper2kvmd.model.machine import Firmware, Hardware
from tests.support.benches import plan_for


def decided(
    source: dict[str, object], asked: dict[str, object], guest: Guest | None = None, firmware: Firmware = "bios"
) -> Hardware:
    plan = plan_for((), Layout(tables=()), firmware)
    plan = plan.with_changes(machine=plan.machine.with_changes(**source))
    migration = Migration.model_validate({"vmdk": Path("/a.vmdk"), "vm_name": "a", **asked})
    return decide_hardware(migration, plan, guest or Guest())


def test_what_is_asked_for_overrides_the_source() -> None:
    found = decided({"memory": 4096, "vcpus": 4}, {"memory": 512, "machine": "pc"})
    assert (found.memory, found.vcpus, found.machine) == (512, 4, "pc")


def test_where_nothing_tells_there_is_a_default() -> None:
    found = decided({}, {})
    assert (found.memory, found.vcpus, found.machine) == (2048, 2, "q35")


def test_the_machine_boots_from_the_guests_boot_disk() -> None:
    assert (decided({}, {}).boot_disk, decided({}, {}, Guest(boot_disk=1)).boot_disk) == (0, 1)


def test_the_guests_drivers_decide_on_the_devices() -> None:
    capable = Capabilities(disk_bus="sata", nic_model="e1000e", rtc="localtime")
    found = decided({}, {}, Guest(family="windows", capabilities=capable))
    assert (found.disk_bus, found.nic_model, found.rtc) == ("sata", "e1000e", "localtime")


@pytest.mark.parametrize(
    ("source", "asked", "firmware", "on"),
    [
        (True, None, "uefi", True),
        (False, None, "uefi", False),
        (None, None, "uefi", False),
        (True, False, "uefi", False),
        (None, True, "uefi", True),
        (True, None, "bios", False),
    ],
)
def test_secure_boot_needs_uefi(source: bool | None, asked: bool | None, firmware: Firmware, on: bool) -> None:
    assert decided({"secure_boot": source}, {"secure_boot": asked}, firmware=firmware).secure_boot is on


@pytest.mark.parametrize(("asked", "on"), [(None, False), (True, True)])
def test_a_guest_that_lost_a_signature_gets_no_secure_boot_unless_it_is_asked_for(asked: bool | None, on: bool) -> None:
    unsigned = Guest(capabilities=Capabilities(secure_boot=False))
    found = decided({"secure_boot": True}, {"secure_boot": asked}, unsigned, "uefi")
    assert found.secure_boot is on


@pytest.mark.parametrize(
    ("source", "asked", "has"),
    [(True, None, True), (None, None, False), (True, False, False), (None, True, True)],
)
def test_a_tpm_is_kept_given_or_left_out(source: bool | None, asked: bool | None, has: bool) -> None:
    assert decided({"tpm": source}, {"tpm": asked}).tpm is has


@pytest.mark.parametrize(
    ("source", "asked", "family", "topology"),
    [
        ({"vcpus": 8, "cores_per_socket": 4}, {}, "linux", (2, 4)),
        ({"vcpus": 8, "cores_per_socket": 4}, {"vcpus": 12}, "linux", (3, 4)),
        ({"vcpus": 8, "cores_per_socket": 4}, {"vcpus": 6}, "linux", (None, None)),
        ({"vcpus": 8}, {}, "linux", (None, None)),
        ({"vcpus": 8}, {}, "windows", (1, 8)),
        ({"vcpus": 8, "cores_per_socket": 1}, {}, "windows", (8, 1)),
    ],
)
def test_cores_fill_whole_sockets(
    source: dict[str, object], asked: dict[str, object], family: str, topology: tuple[int | None, int | None]
) -> None:
    found = decided(source, asked, Guest().with_changes(family=family))
    assert (found.sockets, found.cores_per_socket) == topology


def test_identity_and_drives_are_the_sources() -> None:
    identity = {"uuid": "564d0000-0000-0000-0000-000000000001", "serial": "VMware-56 4d", "genid": "0" * 8}
    found = decided({**identity, "cdroms": 2}, {})
    assert (found.uuid, found.serial, found.genid, found.cdroms) == (*identity.values(), 2)
    assert (decided({}, {}).cdroms, decided({"cdroms": 90}, {}).cdroms) == (0, 4)


@pytest.mark.parametrize(
    ("network_map", "networks"),
    [
        ({}, [None, None, None]),
        ({"VM Network": "lan"}, ["lan", None, None]),
        ({"VM Network": "lan", "default": "bridge:br0"}, ["lan", "bridge:br0", "bridge:br0"]),
    ],
)
def test_each_card_keeps_its_own_network(network_map: dict[str, str], networks: list[str | None]) -> None:
    cards = ("VM Network", "Backup", None)
    nics = tuple(Nic(name=None, mac=f"52:54:00:00:00:0{number}", network=one) for number, one in enumerate(cards))
    found = decided({}, {"network_map": network_map}, Guest(nics=nics))
    assert [nic.network for nic in found.nics] == networks
    assert found.macs == tuple(nic.mac for nic in nics)


def test_hyperv_is_for_windows() -> None:
    assert (decided({}, {}).hyperv, decided({}, {}, Guest(family="windows")).hyperv) == (False, True)
