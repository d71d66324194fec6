"""Transaction logs: what Windows had logged is never lost. The judge is python-registry, which applies logs as well."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence

import pytest
from Registry.RegistryLog import RegistryLog

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.windows.registry import Hive
from hyper2kvmd.guest.windows.registry.marvin import marvin32
from tests.support import hives
from tests.support.hive_check import checked
from tests.support.hives import dword, sz

NUMBERS = 40


def state(number: int) -> bytes:
    """The hive after a number of writes; it grows now and then."""
    steps = {f"step{each:02}": {"number": dword(each), "text": sz(f"text {each} " * each)} for each in range(number)}
    return hives.hive({"Steps": steps, "Select": {"Current": dword(number)}}, sequences=(100 + number, 100 + number))


STATES = [state(number) for number in range(NUMBERS)]


def entry(number: int) -> bytes:
    """What Windows logs when the hive goes from one state to the next."""
    after = STATES[number]
    return hives.entry(100 + number, len(after) - 4096, hives.differing_pages(STATES[number - 1], after), number % 2)


def log(first: int, last: int) -> bytes:
    return hives.log(STATES[first - 1], 100 + first, [entry(number) for number in range(first, last + 1)])


def dirty(number: int) -> bytes:
    """The hive on the disk, whose next write had begun."""
    return hives.marked(STATES[number], 101 + number, 100 + number)


def recovered(primary: bytes, logs: Sequence[bytes]) -> bytes:
    hive = Hive.parse(primary, logs)
    return bytes(hive.cells.data)


def same(found: bytes, number: int) -> bool:
    """The bins and sequence numbers of a state."""
    return found[4:12] == STATES[number][4:12] and found[4096:] == STATES[number][4096:]


def judged(primary: bytes, *logs: bytes) -> bytes:
    """As python-registry applies logs, in the order of their numbers."""
    file, sequence = io.BytesIO(primary), None
    for data in logs:
        one = RegistryLog(file, io.BytesIO(data))
        file.seek(0)
        sequence = one.recover_hive() if sequence is None else one.recover_hive_continue(sequence + 1)
        file.seek(0)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        ("", 0x30ED35C100CD3C7D),
        ("af", 0x48E73FC77D75DDC1),
        ("e70f", 0xB5F6E1FC485DBFF8),
        ("37f495", 0xF0B07C789B8CF7E8),
        ("8642dc59", 0x7008F2E87E9CF556),
        ("ab427ea8d10fc7", 0xE11847E4F0678C41),
    ],
)
def test_the_hash_is_marvin32(data: str, digest: int) -> None:
    """The vectors are those of .NET's own tests."""
    assert marvin32(bytes.fromhex(data), 0x004FB61A001BDBCC) == digest


@pytest.mark.parametrize("first", [1, 5, NUMBERS - 1])
def test_entries_are_applied(first: int) -> None:
    last = NUMBERS - 1
    found = recovered(dirty(first - 1), [log(first, last)])
    assert same(found, last)
    assert checked(found) == checked(STATES[last])
    assert judged(dirty(first - 1), log(first, last))[4096:] == found[4096:]


@pytest.mark.parametrize("turned", [False, True])
def test_the_second_log_continues_the_first(turned: bool) -> None:
    """Either file may be the older one."""
    logs = [log(3, 9), log(10, 20)]
    found = recovered(dirty(2), logs[::-1] if turned else logs)
    assert same(found, 20)
    assert judged(dirty(2), *logs)[4096:] == found[4096:]


def test_entries_that_the_hive_has_are_left_out() -> None:
    """The hive was written completely after entry 12, and the log was not begun anew."""
    hive = Hive.parse(dirty(12), [log(3, 20)])
    assert same(bytes(hive.cells.data), 20)
    assert hive.replayed == 9


def test_a_log_that_the_hive_has_is_left_out() -> None:
    hive = Hive.parse(dirty(12), [log(3, 9), log(12, 15)])
    assert same(bytes(hive.cells.data), 15)


def test_logs_of_a_complete_hive_are_ignored() -> None:
    hive = Hive.parse(STATES[5], [log(6, 20)])
    assert hive.cells.data == STATES[5]
    assert hive.replayed == 0


@pytest.mark.parametrize("at", [8, 50, 700, -1])
def test_an_entry_that_was_not_written_completely_ends_the_log(at: int) -> None:
    whole, torn = log(3, 9), bytearray(entry(10))
    torn[at] ^= 1
    assert same(recovered(dirty(2), [whole + torn + entry(11)]), 9)
    assert same(recovered(dirty(2), [whole + bytes(torn)[:512]]), 9)


def test_old_entries_behind_the_last_one_are_left_out() -> None:
    assert same(recovered(dirty(12), [log(13, 15) + entry(4) + entry(5)]), 15)


def test_sequence_numbers_begin_again_at_zero() -> None:
    last = 0xFFFFFFFF
    size = len(STATES[1]) - 4096
    entries = [
        hives.entry(last, size, hives.differing_pages(STATES[0], STATES[1])),
        hives.entry(0, len(STATES[2]) - 4096, hives.differing_pages(STATES[1], STATES[2])),
    ]
    data = hives.log(STATES[0], last, entries)
    found = recovered(hives.marked(STATES[0], last, last - 1), [data])
    assert found[4:12] == bytes(8)
    assert found[4096:] == STATES[2][4096:]


@pytest.mark.parametrize("damaged", [range(512), range(4, 12)])
def test_a_damaged_header_is_restored_from_the_log(damaged: range) -> None:
    data = bytearray(STATES[2])
    for at in damaged:
        data[at] = random.Random(at).randrange(256)  # noqa: S311
    assert same(recovered(bytes(data), [log(3, 9)]), 9)
    assert same(recovered(bytes(data), [log(10, 12), log(3, 9)]), 12)


def test_flags_of_the_hive_follow_the_entries() -> None:
    assert recovered(dirty(2), [log(3, 9)])[144] & 1 == 1
    assert recovered(dirty(2), [log(3, 8)])[144] & 1 == 0


OLD = hives.log(STATES[2], 103, [b"DIRT" + b"\xff" * 508 + STATES[3][4096:8192]], kind=1)
UNFIT = {
    "no log": ([], "are missing"),
    "empty logs": ([b"", b""], "are missing"),
    "an old log": ([OLD, b""], "Windows 7 and Server 2008 R2 (DIRT)"),
    "a log that the hive has": ([log(1, 1)], "no entry"),
    "a log without entries": ([hives.log(STATES[2], 103, [])], "no entry"),
    "a log with a damaged header": ([b"regf" + bytes(508) + entry(3)], "no entry"),
    "an unfinished log": ([hives.marked(log(3, 5), 103, 102)], "no entry"),
    "a gap": ([log(3, 5), log(7, 9)], "lack what is between 105 and 107"),
    "three logs": ([log(3, 5), log(6, 7), log(8, 9)], "Windows writes two"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_dirty_hive_without_a_fitting_log_is_refused(name: str) -> None:
    logs, fact = UNFIT[name]
    with pytest.raises(MigrationFailed) as caught:
        Hive.parse(dirty(2), logs, name="SYSTEM")
    assert caught.value.code == "registry-log-unfit"
    assert fact in caught.value.message
    assert caught.value.message.startswith("registry hive SYSTEM: ")


@pytest.mark.parametrize("logs", [[], [OLD], [log(1, 1)[:600]]])
def test_a_damaged_header_without_a_copy_is_refused(logs: list[bytes]) -> None:
    with pytest.raises(MigrationFailed) as caught:
        Hive.parse(b"regf" + bytes(508) + STATES[2][512:], logs)
    assert caught.value.code == "registry-damaged"
