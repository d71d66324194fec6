"""The records of a Windows event log (EVTX): their numbers, and of new ones the provider and the event ID.

A damaged record is passed over or ends its chunk, so a reader never sees more records than Windows wrote. Checksums are
not compared: Windows renews those of its current chunk late, and a stopped machine leaves old ones.
Source: libevtx' description of the file format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from hyper2kvmd.guest.windows.boot_proof.binary_xml import Template, Unreadable, read_identity

SIGNATURE, CHUNK_SIGNATURE, RECORD_SIGNATURE = b"ElfFile\0", b"ElfChnk\0", b"**\0\0"
FILE_HEADER, CHUNK, CHUNK_HEADER = 4096, 1 << 16, 512
RECORD = struct.Struct("<4sIQQ")
"""Signature, size, number, time. The size is repeated at the end."""
RECORDS_LIMIT = 5000
"""New ones that are looked into: no boot writes more."""


@dataclass(frozen=True)
class Event:
    number: int
    provider: str
    event_id: int | None


@dataclass(frozen=True)
class EventLog:
    highest: int
    """The number of the last record; 0 for an empty log."""
    new: tuple[Event, ...]


@dataclass(frozen=True)
class _LogRecord:
    number: int
    at: int
    """Of its binary XML, in the chunk."""
    end: int


def read_event_log(data: bytes, known: int | None = None) -> EventLog | None:
    """The log, with the events whose number is above `known`; None if `data` is no event log.

    A log that ends before `known` was begun anew, so all its events are new. Without `known` none are looked into.
    """
    if not data.startswith(SIGNATURE):
        return None
    last = {at: max(one.number for one in records) for at, records in _chunks(data) if records}
    highest = max(last.values(), default=0)
    if known is None:
        return EventLog(highest, ())
    floor = known if highest >= known else 0
    events: list[Event] = []
    for at in (at for at, number in last.items() if number > floor):
        chunk, templates = data[at : at + CHUNK], dict[int, Template]()
        room = RECORDS_LIMIT - len(events)
        events += [_event(chunk, one, templates) for one in islice(_above(floor, chunk), room)]
    return EventLog(highest, tuple(sorted(events, key=lambda event: event.number)))


def _chunks(data: bytes) -> Iterator[tuple[int, tuple[_LogRecord, ...]]]:
    """The place of each chunk, and its records."""
    for at in range(FILE_HEADER, len(data), CHUNK):
        chunk = data[at : at + CHUNK]
        if chunk.startswith(CHUNK_SIGNATURE):
            yield at, tuple(_records(chunk))


def _records(chunk: bytes) -> Iterator[_LogRecord]:
    """Those in order: behind the last one, a chunk that is used again still has older ones."""
    at, last = CHUNK_HEADER, None
    while at + RECORD.size + 4 <= len(chunk):
        signature, size, number, _ = RECORD.unpack_from(chunk, at)
        end = at + size
        if signature != RECORD_SIGNATURE or size < RECORD.size + 4 or end > len(chunk):
            return
        if chunk[end - 4 : end] != chunk[at + 4 : at + 8] or (last is not None and number != last + 1):
            return
        yield _LogRecord(number, at + RECORD.size, end - 4)
        at, last = end, number


def _above(floor: int, chunk: bytes) -> Iterator[_LogRecord]:
    return (record for record in _records(chunk) if record.number > floor)


def _event(chunk: bytes, record: _LogRecord, templates: dict[int, Template]) -> Event:
    try:
        provider, event_id = read_identity(chunk, record.at, record.end, templates)
    except Unreadable:
        return Event(record.number, "", None)
    return Event(record.number, provider, event_id)
