"""The traces of a boot on the volume of Windows. No Windows writes here: logs are made as Windows writes them."""

from __future__ import annotations

import pytest

from hyper2kvmd.guest.windows.boot_proof.traces import LOG, RESULT, Reader, WindowsTraces, new_since, traces
from tests.support.event_logs import KERNEL, Written, booted, event_log


def reader(log: bytes | None = b"", result: bytes | None = b"") -> Reader:
    files = {LOG: log, RESULT: result}
    return lambda path, _: files[path]


def test_a_new_boot_is_named_and_earlier_ones_are_not() -> None:
    before = traces(reader(event_log(booted(1))))
    assert before == WindowsTraces(highest=7, result_size=0)
    assert new_since(before, reader(event_log(booted(1)))) == ()
    found = new_since(before, reader(event_log(booted(1), booted(8))))
    assert found[0] == f"its System event log shows that Windows started (event 12 of {KERNEL})"
    assert [line.split("(event ")[1].split(" ")[0] for line in found] == ["12", "6005", "1074", "6006", "13"]


def test_records_of_a_shutdown_alone_prove_no_boot() -> None:
    before = traces(reader(event_log(booted(1))))
    assert new_since(before, reader(event_log(booted(1), booted(8)[3:]))) == ()


def test_a_number_of_another_provider_proves_nothing() -> None:
    before = traces(reader(event_log(booted(1))))
    others = (Written(8, "Service Control Manager", 12), Written(9, KERNEL, 6005))
    assert new_since(before, reader(event_log(booted(1), others))) == ()


@pytest.mark.parametrize("log", [None, b"", b"ElfFi"], ids=["unreadable", "missing", "no log"])
def test_what_was_unreadable_before_is_no_evidence_after(log: bytes | None) -> None:
    before = traces(reader(log))
    assert before.highest is None
    assert new_since(before, reader(event_log(booted(1)))) == ()


def test_the_result_of_the_first_boot_is_shown() -> None:
    old, new = b"2026-01-01 10:00:00 drivers: done\r\n", b"2026-01-02 10:00:00 network: done\r\n\r\nfin\x1bished\r\n"
    before = traces(reader(result=old))
    assert new_since(before, reader(result=old)) == ()
    first, last = new_since(before, reader(result=old + new))
    assert first == "its service of the first boot wrote: 2026-01-02 10:00:00 network: done"
    assert last.isprintable()


def test_a_result_that_was_unreadable_before_is_no_evidence_after() -> None:
    assert new_since(traces(reader(result=None)), reader(result=b"finished\r\n")) == ()
    assert new_since(traces(reader()), reader(result=None)) == ()


def test_a_long_result_is_cut() -> None:
    found = new_since(traces(reader()), reader(result=b"\n".join([b"x" * 5000] * 500)))
    assert len(found) == 8 and max(map(len, found)) < 300
