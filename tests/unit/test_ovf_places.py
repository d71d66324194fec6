"""The places of the disks of an OVF descriptor, and their order."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyper2kvmd.model.machine import DiskAddress
from tests.support.ovf_texts import (
    VERSIONS,
    Item,
    System,
    Version,
    controller,
    cpu,
    disk,
    envelope,
    memory,
    read,
    two_disks,
)


def order_of(*items: Item, sections: str = "", count: int | None = None) -> list[str]:
    count = sum("HostResource" in item.fields for item in items) if count is None else count
    text = envelope(
        System((cpu(), memory(), *items), sections=sections),
        files=[{"id_": f"f{n}", "href": f"disk{n}.vmdk"} for n in range(1, count + 1)],
        disks=[{"diskId": f"d{n}", "fileRef": f"f{n}"} for n in range(1, count + 1)],
    )
    return [one.id for one in read(text).disks]


FOUR = [controller(str(10 + number), address=str(number)) for number in range(4)]


@pytest.mark.parametrize("listed", list(itertools.permutations(range(4))))
def test_controllers_in_any_order(listed: tuple[int, ...]) -> None:
    """Real exports list controllers as 3, 2, 1, 0, with the disks in the order of the controllers or not."""
    disks = [disk(str(20 + n), f"ovf:/disk/d{n + 1}", parent=str(10 + n), unit="0") for n in range(4)]
    items = [*(FOUR[n] for n in listed), *(disks[n] for n in listed)]
    assert order_of(*items) == ["d1", "d2", "d3", "d4"]


@pytest.mark.parametrize("units", [("0", "2", "10"), ("10", "0", "2"), ("2", "10", "0")])
def test_units_are_numbers(units: tuple[str, ...]) -> None:
    disks = [disk(str(20 + n), f"ovf:/disk/d{n + 1}", parent="10", unit=unit) for n, unit in enumerate(units)]
    expected = sorted(range(3), key=lambda n: int(units[n]))
    assert order_of(FOUR[0], *disks) == [f"d{n + 1}" for n in expected]


def test_the_controller_counts_before_the_unit() -> None:
    disks = [disk("20", "ovf:/disk/d1", parent="11", unit="0"), disk("21", "ovf:/disk/d2", parent="10", unit="15")]
    assert order_of(*FOUR[:2], *disks) == ["d2", "d1"]


BUSES = {
    "scsi": controller("30", "6"),
    "nvme": controller("31", "20", subtype="vmware.nvme.controller"),
    "sata": controller("32", "20", subtype="vmware.sata.ahci"),
    "ide": controller("33", "5", subtype="PIIX4"),
}


@pytest.mark.parametrize("listed", list(itertools.permutations(BUSES)))
def test_buses_in_any_order(listed: tuple[str, ...]) -> None:
    disks = [
        disk(str(40 + n), f"ovf:/disk/d{n}", parent=str(BUSES[bus].fields["InstanceID"]))
        for n, bus in enumerate(BUSES, start=1)
    ]
    assert order_of(*(BUSES[bus] for bus in listed), *reversed(disks)) == ["d1", "d2", "d3", "d4"]


@pytest.mark.parametrize(
    ("kind", "subtype", "bus"),
    [
        ("6", "lsilogic", "scsi"), ("6", "lsilogicsas", "scsi"), ("6", "buslogic", "scsi"), ("6", "", "scsi"),
        ("6", "VirtualSCSI", "scsi"), ("5", "PIIX4", "ide"), ("5", "", "ide"), ("20", "AHCI", "sata"),
        ("20", "", "sata"), ("20", "vmware.sata.ahci", "sata"), ("20", "vmware.nvme.controller", "nvme"),
        ("20", "NVMe", "nvme"), ("20", "VirtioSCSI", "scsi"),
    ],
)  # fmt: skip
def test_the_bus_of_a_controller(kind: str, subtype: str, bus: str) -> None:
    items = (cpu(), memory(), controller("3", kind, "1", subtype), disk("4", unit="2"))
    address = read(envelope(System(items))).disks[0].address
    assert address and (address.bus, address.controller, address.unit) == (bus, 1, 2)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_slot_of_a_controller(version: Version) -> None:
    inside = '<vmw:Config ovf:required="false" vmw:key="slotInfo.pciSlotNumber" vmw:value="160"/>'
    placed = Item(controller("3").fields, inside=inside)
    (found,) = read(envelope(System((cpu(), memory(), placed, disk("4"))), version=version)).disks
    assert found.address == DiskAddress(bus="scsi", controller=0, unit=0, slot=160)


def test_the_bus_number_of_version_0_9() -> None:
    fields = {"Caption": "SCSI", "InstanceId": "3", "ResourceType": "6", "BusNumber": "1"}
    (found,) = read(envelope(System((cpu(), memory(), Item(fields), disk("4"))), version="0.9")).disks
    assert found.address == DiskAddress(bus="scsi", controller=1, unit=0)


def concerns_of(*items: Item) -> tuple[list[str | None], list[str]]:
    """The disks with an address, in order, and the codes of all concerns."""
    found = read(two_disks(*items))
    return [one.id if one.address else None for one in found.disks], [one.code for one in found.machine.concerns]


def test_two_disks_at_one_place_are_told_apart() -> None:
    items = [controller("3"), disk("4", "ovf:/disk/d1", unit="0"), disk("5", "ovf:/disk/d2", unit="0")]
    assert concerns_of(*items) == (["d1", None], ["disk-position-unclear"])
    assert order_of(*items) == ["d1", "d2"]


def test_the_first_of_two_disks_at_one_place_keeps_it() -> None:
    items = [controller("3"), disk("4", "ovf:/disk/d2", unit="0"), disk("5", "ovf:/disk/d1", unit="0")]
    assert order_of(*items) == ["d2", "d1"]
    third = disk("6", "ovf:/disk/d3", unit="1")
    assert order_of(controller("3"), third, *items[1:]) == ["d2", "d1", "d3"]


def test_two_controllers_with_one_number_are_told_apart() -> None:
    items = [controller("3"), controller("7"), disk("4", "ovf:/disk/d1"), disk("5", "ovf:/disk/d2", parent="7")]
    assert concerns_of(*items) == (["d1", None], ["disk-position-unclear"])


@pytest.mark.parametrize("parent", [None, "", "99"])
def test_a_missing_parent_is_a_concern(parent: str | None) -> None:
    items = [controller("3"), disk("4", "ovf:/disk/d1", parent=parent), disk("5", "ovf:/disk/d2", unit="1")]
    assert concerns_of(*items) == (["d2", None], ["disk-position-unclear"])


@pytest.mark.parametrize("parent", [None, "", "99"])
def test_a_missing_parent_of_the_only_disk_is_no_concern(parent: str | None) -> None:
    found = read(envelope(System((cpu(), memory(), disk("4", parent=parent)))))
    assert found.disks[0].address is None and not found.machine.concerns


def test_disks_without_controllers_are_in_the_order_of_their_numbers() -> None:
    """Xen has no controllers."""
    items = [disk(str(4 + n), f"ovf:/disk/d{n}", parent=None, unit=str(n), kind="19") for n in (2, 0, 1, 10)]
    renamed = [Item({**one.fields, "HostResource": f"ovf:/disk/d{n}"}) for n, one in enumerate(items, start=1)]
    assert order_of(*renamed) == ["d2", "d3", "d1", "d4"]


def test_disks_without_any_place_keep_their_order() -> None:
    items = [disk(str(4 + n), f"ovf:/disk/d{n}", parent=None, unit=None) for n in (3, 1, 2)]
    assert order_of(*items) == ["d3", "d1", "d2"]


def test_a_controller_without_a_number() -> None:
    lone = [controller("3", address=None), disk("4", "ovf:/disk/d1"), disk("5", "ovf:/disk/d2", unit="1")]
    assert concerns_of(*lone) == (["d1", "d2"], [])
    doubtful = [
        controller("3", address=None),
        controller("7"),
        disk("4", "ovf:/disk/d1"),
        disk("5", "ovf:/disk/d2", parent="7"),
    ]
    assert concerns_of(*doubtful) == (["d2", None], ["disk-position-unclear"])


def test_controllers_with_one_instance_are_none() -> None:
    items = [
        controller("3"),
        controller("3", address="1"),
        disk("4", "ovf:/disk/d1"),
        disk("5", "ovf:/disk/d2", unit="1"),
    ]
    assert concerns_of(*items)[1] == ["disk-position-unclear"] * 2


@pytest.mark.parametrize("unit", [None, "", "x", "-1", "99999"])
def test_a_unit_that_is_no_number(unit: str | None) -> None:
    items = [controller("3"), disk("4", "ovf:/disk/d1", unit=unit), disk("5", "ovf:/disk/d2", unit="1")]
    assert concerns_of(*items) == (["d2", None], ["disk-position-unclear"])


def boot_order(instance: str, kind: str = "disk") -> str:
    return f"<vmw:BootOrderSection vmw:instanceId='{instance}' vmw:type='{kind}'><Info/></vmw:BootOrderSection>"


@pytest.mark.parametrize(
    ("sections", "order"),
    [
        (boot_order("21"), ["d2", "d1", "d3"]),
        (boot_order("20"), ["d1", "d2", "d3"]),
        (boot_order("22") + boot_order("21"), ["d3", "d1", "d2"]),
        (boot_order("99"), ["d1", "d2", "d3"]),
        (boot_order("21", "cdrom"), ["d1", "d2", "d3"]),
        ("", ["d1", "d2", "d3"]),
    ],
)
def test_the_disk_that_the_source_starts_from_comes_first(sections: str, order: list[str]) -> None:
    items = [controller("10"), *(disk(str(19 + n), f"ovf:/disk/d{n}", "10", str(n)) for n in (1, 2, 3))]
    assert order_of(*items, sections=sections) == order


PLACES = st.lists(
    st.tuples(st.sampled_from(sorted(BUSES)), st.integers(0, 3), st.integers(0, 15)),
    min_size=1,
    max_size=12,
    unique=True,
)


@settings(max_examples=100, deadline=None)
@given(PLACES, st.randoms(use_true_random=False))
def test_the_order_of_the_items_does_not_matter(places: list[tuple[str, int, int]], random: Random) -> None:
    """Each disk has the place that its item states, and the disks are in the order of these places."""
    kinds = {bus: (str(one.fields["ResourceType"]), str(one.fields["ResourceSubType"])) for bus, one in BUSES.items()}
    controllers = {(bus, number) for bus, number, _ in places}
    items = [controller(f"{bus}{number}", kinds[bus][0], str(number), kinds[bus][1]) for bus, number in controllers]
    items += [
        disk(f"disk{at}", f"ovf:/disk/d{at}", f"{bus}{number}", str(unit))
        for at, (bus, number, unit) in enumerate(places, start=1)
    ]
    random.shuffle(items)
    found = read(two_disks(*items, files=len(places))).disks
    stated = [(one.address.bus, one.address.controller, one.address.unit) for one in found if one.address]
    assert stated == sorted(places, key=lambda one: (list(BUSES).index(one[0]), *one[1:]))
    assert [places[int(one.id[1:]) - 1] for one in found] == stated
