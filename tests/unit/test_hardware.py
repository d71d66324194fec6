"""The new machine: what is asked for goes before what the source had, and that before the defaults."""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.hardware import decide_hardware
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.guest import Capabilities, Guest
from hyper2kvmd.model.machine import Hardware
from tests.support.benches import plan_for


def decided(source: dict[str, int], asked: dict[str, object], guest: Guest | None = None) -> Hardware:
    plan = plan_for((), Layout(tables=()))
    plan = plan.with_changes(machine=plan.machine.with_changes(**source))
    migration = Migration.model_validate({"vmdk": Path("/a.vmdk"), "vm_name": "a", **asked})
    return decide_hardware(migration, plan, guest or Guest())


def test_what_is_asked_for_overrides_the_source() -> None:
    source = {"memory": 4096, "vcpus": 4}
    found = decided(source, {"memory": 512, "machine": "pc"})
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
