"""Registry hives and transaction logs of hostile guests: refused soon and in little memory."""

from __future__ import annotations

import signal
import struct
from collections.abc import Callable

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.windows.registry import Editor, Hive, Key, Value, reg_text
from tests.fuzz.harness import bounded
from tests.support import hives
from tests.support.hives import dword, sz

WIDE = 3000


def walk(key: Key, levels: int = 1000) -> None:
    for below in key.subkeys() if levels else ():
        list(below.values())
        walk(below, levels - 1)


def ending(read: Callable[[], object]) -> str:
    """How a reading ends. None takes a tenth of this time, or of this memory."""
    with bounded():
        signal.setitimer(signal.ITIMER_REAL, 60)
        try:
            read()
        except MigrationFailed as failure:
            return failure.code
        except (MemoryError, TimeoutError, RecursionError) as error:
            return type(error).__name__
    return "read"


def key_at(data: bytearray, name: str) -> int:
    """Where the record of the only key with this name is in the hive."""
    return data.index(name.encode(), 4096) - 76


def in_itself() -> bytes:
    """A key that is in itself."""
    data = bytearray(hives.hive({"outer": {"inner": {}}}))
    own, other = key_at(data, "outer"), key_at(data, "inner")
    for place in (20, 28):
        data[other + place : other + place + 4] = data[own + place : own + place + 4]
    return bytes(data)


def wide() -> bytes:
    """A key with thousands of subkeys, each of which has the same ones."""
    data = bytearray(hives.hive({"wide": {f"k{number:04}": {} for number in range(WIDE)}}))
    lists = struct.unpack_from("<I", data, key_at(data, "wide") + 28)[0]
    for number in range(WIDE):
        at = key_at(data, f"k{number:04}")
        struct.pack_into("<I", data, at + 20, WIDE)
        struct.pack_into("<I", data, at + 28, lists)
    return bytes(data)


def large_value() -> bytes:
    """A thousand values that share the data of 20 MiB."""
    names = {f"v{number}": dword(0) for number in range(1000)}
    data = bytearray(hives.hive({"a": names, "z": {"large": (3, bytes(20 << 20))}}, minor=3))
    where = struct.unpack_from("<II", data, data.index(b"large", 4096) - 20 + 4)
    at = data.find(b"vk", 4096)
    while at > 0:
        if data[at + 20 : at + 21] == b"v":
            struct.pack_into("<II", data, at + 4, *where)
        at = data.find(b"vk", at + 2)
    return bytes(data)


def listed_again() -> bytes:
    """A key whose list has the same list of subkeys 65,535 times, each with the same key 65,535 times."""
    data, most = bytearray(hives.hive({"wide": {"key": {}}})), 65535
    start, wide = len(data) - 4096, key_at(data, "wide")
    key = key_at(data, "key") - 4 - 4096
    leaf = struct.pack("<2sH", b"lh", most) + struct.pack("<II", key, 1) * most
    root = struct.pack("<2sH", b"ri", most) + struct.pack("<I", start + 32) * most
    cells = b"".join(struct.pack("<i", -len(one) - 4) + one for one in (leaf, root))
    length = (32 + len(cells) + 4095) & ~4095
    data += struct.pack("<4sIIQQI", b"hbin", start, length, 0, 0, 0) + cells.ljust(length - 32, b"\0")
    struct.pack_into("<I", data, wide + 20, most)
    struct.pack_into("<I", data, wide + 28, start + 32 + 4 + len(leaf))
    struct.pack_into("<I", data, 40, len(data) - 4096)
    struct.pack_into("<I", data, 508, hives.checksum(data[:512]))
    return bytes(data)


HOSTILE: dict[str, tuple[Callable[[], bytes], Callable[[Hive], object]]] = {
    "a key in itself": (in_itself, lambda hive: walk(hive.root)),
    "keys without end": (wide, lambda hive: walk(hive.root, 4)),
    "a key in two lists": (wide, lambda hive: Editor(hive).delete_key("wide")),
    "lists without end": (listed_again, lambda hive: hive.find(r"wide\other")),
    "data without end": (large_value, lambda hive: list(next(hive.root.subkeys()).values())),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_hive_is_refused_soon_in_little_memory(name: str) -> None:
    make, read = HOSTILE[name]
    hive = Hive.parse(make())
    assert ending(lambda: read(hive)) == "registry-damaged"


PRIMARY = hives.hive({"a": {"b": sz("text")}})
SIZE = len(PRIMARY) - 4096
PAGE = PRIMARY[4096:8192]
LOGS = {
    "a hive without end": [hives.entry(8, 0xFFFF_F000, [(0, PAGE)])],
    "a hive without content": [hives.entry(8, 256 << 20, [(0, PAGE)])],
    "a page behind the hive": [hives.entry(8, SIZE, [(SIZE, PAGE)])],
    "a page across the end": [hives.entry(8, SIZE, [(SIZE - 512, PAGE)])],
    "another hash": [hives.entry(8, SIZE, [(0, PAGE)])[:-1] + b"x"],
    "another number": [hives.entry(9, SIZE, [(0, PAGE)])],
}


@pytest.mark.parametrize("name", LOGS)
def test_a_hostile_log_is_refused_in_little_memory(name: str) -> None:
    dirty = hives.marked(PRIMARY, 8, 7)
    assert Hive.parse(dirty, [hives.log(PRIMARY, 8, [hives.entry(8, SIZE, [(0, PAGE)])])]).replayed == 1
    hostile = hives.log(PRIMARY, 8, LOGS[name])
    assert ending(lambda: Hive.parse(dirty, [hostile])) == "registry-log-unfit"


def test_names_of_a_hostile_hive_write_no_control_characters() -> None:
    hostile = "\x1b]0;x\x07\n[HKEY_LOCAL_MACHINE\\SAM]\u202e\ud800"
    editor = Editor(Hive.parse(hives.hive({hostile.replace("\\", ""): {hostile: sz(hostile)}})))
    for key in list(editor.hive.root.subkeys()):
        editor.set(key.path, Value.sz(hostile, "x" + hostile))
        editor.set(key.path, Value.expand_sz("y" + hostile, hostile))
    written = reg_text("HKEY_LOCAL_MACHINE\\SYSTEM", editor.changes)
    assert len(editor.changes) == 2
    assert all(line.isprintable() for line in written.split("\n"))
    assert "\n[HKEY_LOCAL_MACHINE\\SAM]" not in written
