"""Which machine and which configuration of an OVF descriptor is read."""

from __future__ import annotations

import re

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.machines.ovf.envelope import systems
from hyper2kvmd.machines.ovf.sections import vm_name_of
from tests.support.ovf_texts import (
    DISK,
    FILE,
    VERSIONS,
    Item,
    System,
    Version,
    attributes,
    collection,
    controller,
    cpu,
    disk,
    envelope,
    memory,
    read,
    section,
)


def machine(name: str | None, vcpus: int, title: str | None = None) -> System:
    """A system that shows by its processors which one it is."""
    return System((cpu(str(vcpus)), memory(), controller("3"), disk("4")), id=name, name=title)


def chosen(text: bytes, name: str) -> int | None:
    return read(text, system=name).machine.vcpus


def refusal(text: bytes, name: str | None) -> MigrationFailed:
    with pytest.raises(MigrationFailed) as refused:
        read(text, system=name)
    assert refused.value.code == "ovf-system-unclear"
    return refused.value


# ---------------------------------------------------------------- systems


@pytest.mark.parametrize("version", VERSIONS)
def test_the_only_system_needs_no_name(version: Version) -> None:
    assert chosen(envelope(machine("db01", 7), version=version), "web01") == 7
    assert systems(envelope(machine("db01", 7), version=version), name="x.ovf") == ("db01",)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("name", "vcpus"), [("web01", 1), ("db01", 2), ("cache", 3), ("deep", 4)])
def test_a_system_in_nested_collections_by_its_name(version: Version, name: str, vcpus: int) -> None:
    inner = collection(version, machine("deep", 4), id_="inner")
    text = envelope(
        collection(version, machine("web01", 1), machine("db01", 2), inner, machine("cache", 3)), version=version
    )
    assert chosen(text, name) == vcpus
    assert systems(text, name="x.ovf") == ("web01", "db01", "deep", "cache")


@pytest.mark.parametrize("name", [None, "other", "", "WEB01", "web0"])
def test_several_systems_of_other_names_are_refused_with_all_names(name: str | None) -> None:
    text = envelope(collection("1", machine("web01", 1), machine("Data Base (2)", 2), machine(None, 3)))
    error = refusal(text, name)
    assert "3 machines" in error.message and "web01, Data-Base-2, system-3" in error.message
    assert "vm_name" in error.hint


@pytest.mark.parametrize(
    ("identifier", "title", "name"),
    [
        ("vm-17", "web01", "web01"),
        ("Web Server (1)", None, "Web-Server-1"),
        ("vm-17", "Web Server (1)", "Web-Server-1"),
        ("web01", "something else", "web01"),
        ("_web 01_", None, "web-01"),
    ],
)
def test_the_names_that_choose_a_system(identifier: str, title: str | None, name: str) -> None:
    assert chosen(envelope(collection("1", machine(identifier, 9, title), machine("other", 1))), name) == 9


def test_the_names_that_an_error_lists_choose_a_system() -> None:
    text = envelope(collection("1", machine("Web Server (1)", 1), machine("x" * 100, 2), machine("网络 7", 3)))
    listed = re.findall(r"[^:]+$", refusal(text, None).message)[0].strip().split(", ")
    assert [chosen(text, name) for name in listed] == [1, 2, 3]


def test_an_exact_name_wins() -> None:
    text = envelope(collection("1", machine("web 01", 1), machine("web-01", 2)))
    assert chosen(text, "web-01") == 2


@pytest.mark.parametrize("names", [("web01", "web01"), ("web 01", "web(01")])
def test_a_name_of_two_systems_is_refused(names: tuple[str, str]) -> None:
    text = envelope(collection("1", *(machine(name, 1) for name in names)))
    assert "2 machines that vm_name" in refusal(text, vm_name_of(names[0])).message


@pytest.mark.parametrize("version", VERSIONS)
def test_no_system_is_refused(version: Version) -> None:
    for text in (envelope("<a/>", version=version), envelope(collection(version), version=version)):
        assert "no VirtualSystem" in refusal(text, "web01").message
        with pytest.raises(MigrationFailed):
            systems(text, name="x.ovf")


def test_an_envelope_without_anything_is_refused() -> None:
    refusal(b"<Envelope/>", "web01")


def test_a_system_of_somebody_else_is_none() -> None:
    assert chosen(envelope("<x:VirtualSystem xmlns:x='urn:x'/>", machine("web01", 5)), "web01") == 5


@pytest.mark.parametrize("count", [0, 2])
def test_a_system_with_none_or_several_virtual_hardware_sections_is_refused(count: int) -> None:
    whole = System().text("1")
    hardware = re.findall("<VirtualHardwareSection>.*</VirtualHardwareSection>", whole)[0]
    assert "VirtualHardwareSection" in refusal(envelope(whole.replace(hardware, hardware * count)), None).message


# ---------------------------------------------------------------- configurations


def options(*names: str, default: str | None = None, version: Version = "1") -> str:
    marks = {default: {"default": "true"}} if default else {}
    about = [attributes(version, id_=name, **marks.get(name, {})) for name in names]
    content = "".join(f"<Configuration{one}><Label/></Configuration>" for one in about)
    return section(version, "DeploymentOptionSection", f"<Info/>{content}")


SIZES = (
    cpu("1"),
    cpu("2", configuration="small"),
    cpu("4", configuration="medium large"),
    memory("1024", configuration="tiny"),
    memory("2048", configuration="small"),
    memory("4096", configuration="medium"),
    memory("8192", configuration=" large  huge "),
)
DISKS = (controller("3"), disk("4"))
NAMES = ("tiny", "small", "medium", "large")


def size(text: bytes, name: str | None) -> tuple[int | None, int | None]:
    found = read(text, name).machine
    return found.vcpus, found.memory


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("name", "expected"),
    [("tiny", (1, 1024)), ("small", (2, 2048)), ("medium", (4, 4096)), ("large", (4, 8192)), (None, (4, 4096))],
)
def test_the_items_of_a_configuration(version: Version, name: str | None, expected: tuple[int, int]) -> None:
    sections = options(*NAMES, default="medium", version=version)
    assert size(envelope(System((*SIZES, *DISKS)), sections=sections, version=version), name) == expected


def test_the_first_configuration_is_the_default_without_another() -> None:
    assert size(envelope(System((*SIZES, *DISKS)), sections=options(*NAMES)), None) == (1, 1024)


def configuration_refusal(text: bytes, name: str | None) -> MigrationFailed:
    with pytest.raises(MigrationFailed) as refused:
        read(text, name)
    assert refused.value.code == "ovf-configuration-unclear"
    return refused.value


@pytest.mark.parametrize("name", ["Small", "big", "", "small large"])
def test_an_unknown_configuration_is_refused_with_all_names(name: str) -> None:
    error = configuration_refusal(envelope(System((*SIZES, *DISKS)), sections=options(*NAMES)), name)
    assert "tiny, small, medium, large, huge" in error.message and "`configuration`" in error.hint


def test_a_configuration_of_a_descriptor_without_any_is_refused() -> None:
    assert "has no configurations" in configuration_refusal(envelope(), "small").message


def test_two_defaults_are_refused() -> None:
    sections = options("small", "large", default="small").replace('"large"', '"large" ovf:default="1"')
    assert "default" in configuration_refusal(envelope(sections=sections), None).message
    assert read(envelope(sections=sections), "large").disks


def test_configurations_that_only_items_name_have_no_default() -> None:
    text = envelope(System((*SIZES, *DISKS)))
    assert "small, medium, large, tiny, huge" in configuration_refusal(text, None).message
    assert size(text, "small") == (2, 2048)


def test_an_item_for_a_configuration_replaces_the_common_one_of_its_instance_only() -> None:
    other = Item({"ElementName": "NIC", "InstanceID": "1x", "ResourceType": "10"}, about={"configuration": "small"})
    text = envelope(
        System((cpu("1"), cpu("8", configuration="large"), other, *DISKS)), sections=options("small", "large")
    )
    assert (read(text, "small").machine.vcpus, len(read(text, "small").machine.nics)) == (1, 1)
    assert (read(text, "large").machine.vcpus, len(read(text, "large").machine.nics)) == (8, 0)


def test_items_without_an_instance_do_not_replace_each_other() -> None:
    cards = [
        Item({"ResourceType": "10", "Connection": name}, about=about)
        for name, about in (("a", {}), ("b", {"configuration": "s"}))
    ]
    assert [one.network for one in read(envelope(System((*cards, *DISKS)), sections=options("s"))).machine.nics] == [
        "a",
        "b",
    ]


def test_a_disk_of_another_configuration_is_left_out_and_in_use() -> None:
    extra = Item({**disk("5", "ovf:/disk/d2", unit="1").fields}, about={"configuration": "large"})
    files = [FILE, {"id_": "f2", "href": "data.vmdk"}]
    text = envelope(
        System((*DISKS, extra)),
        files=files,
        disks=[DISK, {"diskId": "d2", "fileRef": "f2"}],
        sections=options("small", "large"),
    )
    assert [one.id for one in read(text).disks] == ["d1"] and not read(text).machine.concerns
    assert [one.id for one in read(text, "large").disks] == ["d1", "d2"]


def test_a_configuration_keeps_the_order_of_the_items() -> None:
    cards = [
        Item({"ResourceType": "10", "InstanceID": name, "Connection": f"{name}{at}"}, about=about)
        for at, (name, about) in enumerate([("a", {}), ("b", {}), ("a", {"configuration": "s"}), ("c", {})])
    ]
    found = read(envelope(System((*cards, *DISKS)), sections=options("s"))).machine.nics
    assert [one.network for one in found] == ["b1", "a2", "c3"]


@pytest.mark.parametrize(
    ("text", "name"), [("web01", "web01"), ("Web (1)", "Web-1"), ("...", ""), ("x" * 99, "x" * 63)]
)
def test_a_name_as_vm_name(text: str, name: str) -> None:
    assert vm_name_of(text) == name
