"""Windows event logs (EVTX) as Windows writes them: templates and names where they are used first in a chunk."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

CHUNK, CHUNK_HEADER, FILE_HEADER = 1 << 16, 512, 4096
TIME = 0x01DA_0000_0000_0000
FRAGMENT = b"\x0f\x01\x01\x00"
UINT16, UINT64, FILETIME = 0x06, 0x0A, 0x11
KERNEL, LOG, USER = "Microsoft-Windows-Kernel-General", "EventLog", "User32"


@dataclass(frozen=True)
class Written:
    number: int
    provider: str
    event_id: int


def booted(first: int) -> tuple[Written, ...]:
    """What one boot and its shutdown leave, among other events."""
    kinds = (
        (KERNEL, 12),
        (LOG, 6009),
        (LOG, 6005),
        ("Service Control Manager", 7036),
        (USER, 1074),
        (LOG, 6006),
        (KERNEL, 13),
    )
    return tuple(Written(first + at, *kind) for at, kind in enumerate(kinds))


def event_log(*chunks: Sequence[Written], tokens: bytes = b"") -> bytes:
    """With one chunk for each argument, and `tokens` before the first element of each template."""
    built = [_Chunk(tokens).with_events(events) for events in chunks]
    highest = max((event.number for events in chunks for event in events), default=0)
    header = bytearray(FILE_HEADER)
    struct.pack_into(
        "<8sQQQIHHHH",
        header,
        0,
        b"ElfFile\0",
        0,
        max(len(chunks) - 1, 0),
        highest + 1,
        128,
        1,
        3,
        FILE_HEADER,
        len(chunks),
    )
    struct.pack_into("<I", header, 124, zlib.crc32(header[:120]))
    return bytes(header) + b"".join(built)


class _Chunk:
    def __init__(self, tokens: bytes) -> None:
        self._tokens = tokens
        self._data = bytearray(CHUNK_HEADER)
        self._names: dict[str, int] = {}
        self._templates: dict[str, int] = {}

    def with_events(self, events: Sequence[Written]) -> bytes:
        last = CHUNK_HEADER
        for event in events:
            last = len(self._data)
            self._record(event)
        return self._finished(events, last)

    def _finished(self, events: Sequence[Written], last: int) -> bytes:
        data, free = self._data, len(self._data)
        first_number, last_number = (events[0].number, events[-1].number) if events else (1, 0)
        numbers = (first_number, last_number, first_number, last_number)
        checksum = zlib.crc32(data[CHUNK_HEADER:])
        struct.pack_into("<8sQQQQIIII", data, 0, b"ElfChnk\0", *numbers, 128, last, free, checksum)
        struct.pack_into("<I", data, 124, zlib.crc32(data[:120] + data[128:CHUNK_HEADER]))
        return bytes(data).ljust(CHUNK, b"\0")

    def _record(self, event: Written) -> None:
        data, start = self._data, len(self._data)
        data += struct.pack("<4sIQQ", b"**\0\0", 0, event.number, TIME) + FRAGMENT
        self._template(event.provider)
        values = (
            (UINT16, struct.pack("<H", event.event_id)),
            (UINT64, struct.pack("<Q", event.number)),
            (FILETIME, struct.pack("<Q", TIME)),
        )
        data += struct.pack("<I", len(values))
        data += b"".join(struct.pack("<HBB", len(value), kind, 0) for kind, value in values)
        data += b"".join(value for _, value in values)
        data += bytes(-(len(data) - start + 4) % 8)
        size = len(data) - start + 4
        struct.pack_into("<I", data, start + 4, size)
        data += struct.pack("<I", size)

    def _template(self, provider: str) -> None:
        data = self._data
        number = zlib.crc32(provider.encode())
        place = self._templates.get(provider, len(data) + 10)
        data += struct.pack("<BBII", 0x0C, 1, number, place)
        if provider in self._templates:
            return
        self._templates[provider] = place
        data += struct.pack("<I16sI", 0, struct.pack("<I12x", number), 0)
        start = len(data)
        data += FRAGMENT + self._tokens
        self._event(provider)
        data += b"\0"
        struct.pack_into("<I", data, start - 4, len(data) - start)

    def _event(self, provider: str) -> None:
        event = self._open("Event")
        system = self._open("System")
        self._empty("Provider", "Name", _text(provider))
        self._empty("TimeCreated", "SystemTime", _value_at(2, FILETIME))
        for name, content in (
            ("EventID", _value_at(0, UINT16)),
            ("EventRecordID", _value_at(1, UINT64)),
            ("Channel", _text("System")),
            ("Computer", _text("win01")),
        ):
            place = self._open(name)
            self._data += content
            self._close(place)
        self._close(system)
        self._close(event)

    def _open(self, name: str) -> int:
        """The place of its size, for `_close`."""
        self._data += struct.pack("<BHI", 0x01, 0xFFFF, 0)
        place = len(self._data) - 4
        self._name(name)
        self._data += b"\x02"
        return place

    def _close(self, place: int) -> None:
        self._data += b"\x04"
        struct.pack_into("<I", self._data, place, len(self._data) - place - 4)

    def _empty(self, name: str, attribute: str, value: bytes) -> None:
        data = self._data
        data += struct.pack("<BHI", 0x41, 0xFFFF, 0)
        place = len(data) - 4
        self._name(name)
        data += bytes(4)
        start = len(data)
        data += b"\x06"
        self._name(attribute)
        data += value
        struct.pack_into("<I", data, start - 4, len(data) - start)
        data += b"\x03"
        struct.pack_into("<I", data, place, len(data) - place - 4)

    def _name(self, name: str) -> None:
        data = self._data
        data += struct.pack("<I", self._names.get(name, len(data) + 4))
        if name not in self._names:
            self._names[name] = len(data)
            data += struct.pack("<IHH", 0, _hash(name), len(name)) + name.encode("utf-16-le") + b"\0\0"


def _hash(name: str) -> int:
    found = 0
    for character in name:
        found = (found * 65599 + ord(character)) & 0xFFFF_FFFF
    return found & 0xFFFF


def _text(text: str) -> bytes:
    return struct.pack("<BBH", 0x05, 0x01, len(text)) + text.encode("utf-16-le")


def _value_at(number: int, kind: int) -> bytes:
    return struct.pack("<BHB", 0x0E, number, kind)
