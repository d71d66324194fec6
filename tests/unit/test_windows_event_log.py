"""The event logs of Windows: which records are new, and what they are about."""

from __future__ import annotations

import struct

import pytest

from hyper2kvmd.guest.windows.boot_proof.event_log import (
    CHUNK,
    CHUNK_HEADER,
    FILE_HEADER,
    RECORDS_LIMIT,
    Event,
    read_event_log,
)
from tests.support.event_logs import KERNEL, Written, booted, event_log

FIRST = FILE_HEADER + CHUNK_HEADER


def events(data: bytes, known: int = 0) -> list[Written]:
    log = read_event_log(data, known)
    assert log is not None
    return [Written(one.number, one.provider, one.event_id or 0) for one in log.new]


def test_all_records_of_a_log_are_read() -> None:
    data = event_log(booted(1), booted(8), ())
    log = read_event_log(data)
    assert log is not None and (log.highest, log.new) == (14, ())
    assert events(data) == [*booted(1), *booted(8)]


def test_only_records_behind_the_last_known_one_are_new() -> None:
    assert events(event_log(booted(1), booted(8)), 9) == list(booted(8))[2:]
    assert events(event_log(booted(1)), 7) == []


def test_a_full_log_goes_on_in_its_oldest_chunk() -> None:
    assert events(event_log(booted(15), booted(8)), 14) == list(booted(15))


def test_a_log_that_was_begun_anew_has_only_new_records() -> None:
    assert events(event_log(booted(1)), 4000) == list(booted(1))


def test_old_records_behind_the_last_one_do_not_count() -> None:
    """A chunk that is used again still has them."""
    old, new = event_log(booted(1)), event_log(booted(50)[:1])
    end = new.rindex(b"**\0\0") + struct.unpack_from("<I", new, new.rindex(b"**\0\0") + 4)[0]
    rest = old[old.rindex(b"**\0\0") :]
    assert events((new[:end] + rest).ljust(len(new), b"\0")[: len(new)]) == list(booted(50)[:1])


@pytest.mark.parametrize("data", [b"", b"ElfFile", b"regf" * 5000], ids=["empty", "short", "a hive"])
def test_what_is_no_event_log(data: bytes) -> None:
    assert read_event_log(data, 0) is None


def test_a_log_that_is_cut_has_its_whole_records() -> None:
    data = event_log(booted(1))
    assert events(data[:FILE_HEADER]) == []
    assert events(data[: FIRST + 2000]) == list(booted(1))[: len(events(data[: FIRST + 2000]))] != []


def test_a_record_that_cannot_be_understood_has_no_provider() -> None:
    data = bytearray(event_log(booted(1)))
    data[FIRST + 24] = 0x7F
    log = read_event_log(bytes(data), 0)
    assert log is not None and log.new[0] == Event(1, "", None)
    assert len(log.new) == len(booted(1))


def test_a_size_that_is_not_repeated_ends_the_chunk() -> None:
    data = bytearray(event_log(booted(1)))
    (size,) = struct.unpack_from("<I", data, FIRST + 4)
    data[FIRST + size - 4] ^= 1
    assert events(bytes(data)) == []


@pytest.mark.parametrize(("tokens", "is_read"), [(150, True), (200, False)])
def test_a_template_is_read_to_a_limit_only(tokens: int, is_read: bool) -> None:
    data = event_log(booted(1)[:1], tokens=b"\x07\0\0" * tokens)
    assert events(data) == ([*booted(1)[:1]] if is_read else [Written(1, "", 0)])


@pytest.mark.parametrize(("length", "is_read"), [(256, True), (257, False)])
def test_a_name_is_read_to_a_limit_only(length: int, is_read: bool) -> None:
    """Each of many tokens could name the same long one."""
    name = struct.pack("<IHH", 0, 0, length) + b"x\0" * length + b"\0\0"
    data = event_log(booted(1)[:1], tokens=b"\x06" + struct.pack("<I", CHUNK_HEADER + 24 + 4 + 10 + 24 + 4 + 5) + name)
    assert events(data) == ([*booted(1)[:1]] if is_read else [Written(1, "", 0)])


def test_the_number_of_new_records_is_limited() -> None:
    count = (CHUNK - CHUNK_HEADER) // 28
    data = bytearray(event_log())
    for chunk in range(3):
        data += b"ElfChnk\0".ljust(CHUNK_HEADER, b"\0")
        numbers = range(1 + chunk * count, 1 + (chunk + 1) * count)
        whole = b"".join(struct.pack("<4sIQQI", b"**\0\0", 28, number, 0, 28) for number in numbers)
        data += whole.ljust(CHUNK - CHUNK_HEADER, b"\0")
    log = read_event_log(bytes(data), 0)
    assert log is not None and log.highest == 3 * count
    assert len(log.new) == RECORDS_LIMIT < log.highest


def test_an_id_is_found_in_each_chunk_by_its_own_templates() -> None:
    data = event_log(booted(1)[1:2], (Written(3, KERNEL, 12),))
    assert events(data) == [booted(1)[1], Written(3, KERNEL, 12)]
