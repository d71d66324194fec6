"""Registry hives are read: keys, values, and what is not a hive."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.windows.registry import Hive, Value
from tests.support import hives
from tests.support.hives import Node, dword, sz

SERVICES = {f"service{number}": {"Start": dword(number % 5), "": sz(f"number {number}")} for number in range(900)}
TREE = {
    "Select": {"Current": dword(1), "Default": dword(2)},
    "ControlSet001": {"Services": SERVICES, "Control": {}},
    "Größe Ω 漢字": {"wörter": sz("größer"), "漢": sz("字")},
    "Data": {
        "none": (0, b""),
        "three": (3, b"abc"),
        "five": (3, b"abcde"),
        "expand": (2, "%SystemRoot%\\x\0".encode("utf-16-le")),
        "list": (7, "one\0two\0\0".encode("utf-16-le")),
        "quad": (11, struct.pack("<Q", 1 << 40)),
        "big endian": (5, struct.pack(">I", 7)),
        "odd": (0x12345678, b"x" * 16344),
        "segments": (3, bytes(range(256)) * 200),
    },
}


@pytest.fixture(scope="module")
def hive() -> Hive:
    return Hive.parse(hives.hive(TREE), name="SYSTEM")


def test_keys_are_found_in_any_case(hive: Hive) -> None:
    found = hive.find(r"CONTROLSET001\services\Service77")
    assert found is not None
    assert (found.name, found.path) == ("service77", r"ControlSet001\Services\service77")
    assert found.value("START") == Value("Start", 4, struct.pack("<I", 2))
    assert found.value("") == Value.sz("", "number 77")
    assert hive.find("größe ω 漢字") is not None
    assert hive.find("") == hive.root
    assert hive.find(r"ControlSet001\Services\service900") is None
    assert hive.find(r"No\such\key") is None
    assert found.value("none") is None


def test_subkeys_are_in_the_order_of_their_names(hive: Hive) -> None:
    services = hive.find(r"ControlSet001\Services")
    assert services is not None
    assert [key.name for key in services.subkeys()] == sorted(SERVICES)


@pytest.mark.parametrize("minor", [3, 4, 5, 6])
@pytest.mark.parametrize("kind", [b"lh", b"lf", b"li"])
def test_every_kind_of_list_and_version_is_read(kind: bytes, minor: int) -> None:
    def with_kind(what: Node) -> Node:
        return Node(what.values, {name: with_kind(below) for name, below in what.keys.items()}, kind)

    hive = Hive.parse(hives.hive(with_kind(hives.node(TREE)), minor=minor))
    assert hive.find(r"ControlSet001\Services\service899") is not None
    data = hive.find("Data")
    assert data is not None
    assert {value.name: (value.type, value.data) for value in data.values()} == TREE["Data"]


def test_long_data_in_one_cell_is_read_in_every_version() -> None:
    """hivex writes it so."""
    data = bytearray(hives.hive({"a": {"long": (3, bytes(range(256)) * 100)}}, minor=3))
    struct.pack_into("<I", data, 24, 5)
    struct.pack_into("<I", data, 508, hives.checksum(data))
    found = Hive.parse(bytes(data)).find("a")
    assert found is not None and found.value("long") == Value.binary("long", bytes(range(256)) * 100)


def test_values_are_read_as_text_lists_and_numbers(hive: Hive) -> None:
    data = hive.find("data")
    assert data is not None
    found = {value.name: value for value in data.values()}
    assert found["expand"].text() == "%SystemRoot%\\x"
    assert found["list"].texts() == ("one", "two")
    assert found["expand"].texts() == ("%SystemRoot%\\x",)
    assert (found["quad"].number(), found["big endian"].number()) == (1 << 40, 7)
    assert found["three"].text() == "" and found["three"].texts() == () and found["three"].number() is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Value("x", 1, "abc".encode("utf-16-le")), "abc"),
        (Value("x", 1, "abc\0def\0".encode("utf-16-le")), "abc"),
        (Value("x", 1, "abc".encode("utf-16-le") + b"d"), "abc"),
        (Value("x", 1, b"\x00\xd8"), "\ud800"),
        (Value("x", 1, b""), ""),
    ],
)
def test_text_that_is_not_as_it_should_be_is_read(value: Value, text: str) -> None:
    assert value.text() == text


def header(fmt: str, at: int, number: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(fmt, data, at, number)


def over(old: bytes, new: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        at = data.index(old, 4096)
        data[at : at + len(new)] = new

    return change


ROOT_AT = 4096 + 32 + 48
"""After the header, the first bin's own, and the security descriptor."""


DAMAGED: dict[str, Callable[[bytearray], object]] = {
    "empty": lambda data: data.clear(),
    "another format": lambda data: data.__setitem__(slice(0, 4), b"regx"),
    "half a header": lambda data: data.__delitem__(slice(600, None)),
    "truncated": lambda data: data.__delitem__(slice(5000, None)),
    "version 2": header("<I", 20, 2),
    "version 1.1": header("<I", 24, 1),
    "a log": header("<I", 28, 6),
    "no root": header("<I", 36, 0xFFFFFFFF),
    "a root outside": header("<I", 36, 1 << 30),
    "a root between cells": header("<I", 36, 0x28),
    "a root before the first cell": header("<I", 36, 8),
    "no bins": header("<I", 40, 0),
    "too many bins": header("<I", 40, 1 << 31),
    "half a bin": header("<I", 40, 2048),
    "no bin": over(b"hbin", b"hbim"),
    "a bin elsewhere": header("<I", 4096 + 4, 4096),
    "a bin without a size": header("<I", 4096 + 8, 0),
    "a bin with an odd size": header("<I", 4096 + 8, 4000),
    "a bin without end": header("<I", 4096 + 8, 1 << 31),
    "a cell without a size": header("<i", 4096 + 32, 0),
    "a cell across the end of its bin": header("<i", ROOT_AT, -8192),
    "a free cell": header("<i", ROOT_AT, 96),
    "a key that is none": over(b"nk", b"xx"),
    "a name without end": header("<H", ROOT_AT + 4 + 72, 0xFFFF),
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_hive_is_refused(change: Callable[[bytearray], object]) -> None:
    data = bytearray(hives.hive({"Select": {"Current": sz("a longer text")}}))
    change(data)
    if len(data) > 512:
        struct.pack_into("<I", data, 508, hives.checksum(data))
    with pytest.raises(MigrationFailed) as caught:
        Hive.parse(bytes(data), name="SYSTEM")
    assert caught.value.code == "registry-damaged"
    assert caught.value.message.startswith("registry hive SYSTEM: ")


def values_without_end(data: bytearray) -> None:
    key = data.index(b"nk", ROOT_AT + 8)
    struct.pack_into("<I", data, key + 36, 0xFFFFFFFF)


INSIDE = {
    "a list that is none": over(b"lh", b"xx"),
    "a root of lists in a root of lists": over(b"lh", b"ri"),
    "a list without end": over(b"lh\x01\x00", b"lh\xff\xff"),
    "a value that is none": over(b"vk", b"xx"),
    "a value's name without end": over(b"vk\x07\x00", b"vk\xff\xff"),
    "values without end": values_without_end,
}


def read_all(data: bytes) -> None:
    hive = Hive.parse(data)
    for key in [hive.root, *hive.root.subkeys()]:
        list(key.values())
        list(key.subkeys())


@pytest.mark.parametrize("name", INSIDE)
def test_what_cannot_be_in_a_hive_is_refused(name: str) -> None:
    data = bytearray(hives.hive({"Select": {"Current": sz("a longer text")}}))
    read_all(bytes(data))
    INSIDE[name](data)
    with pytest.raises(MigrationFailed) as caught:
        read_all(bytes(data))
    assert caught.value.code == "registry-damaged"
