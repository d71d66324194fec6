"""The keys of a migration that are for the queue."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from hyper2kvmd import spec
from hyper2kvmd.jobs.submissions import batch_name
from hyper2kvmd.model.asked import DAYS
from hyper2kvmd.model.jobs import Problem
from hyper2kvmd.spec_queue import in_start_order, without_queue

ONE = "vmdk: /web01.vmdk\nvm_name: web01\n"


def parsed(text: str) -> spec.Parsed:
    (one,) = spec.parse(text, default_name="file")
    return one


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(spec.Rejected) as caught:
        spec.parse(text, default_name="file")
    return caught.value.problems


def machines(*lines: str) -> str:
    return "vms:\n" + "".join(f"- {{vmdk: /d.vmdk, {line}}}\n" for line in lines)


def test_all_keys_of_the_queue() -> None:
    text = (
        f"{ONE}batch: wave 1\nafter: db01\nnot_before: 2026-12-31 22:00+01:00\n"
        "window: {days: [sat, sun], from: 22:00, to: 06:00, timezone: Europe/Berlin}\n"
    )
    asked = parsed(text).migration
    assert (asked.batch, asked.after) == ("wave 1", ("db01",))
    assert asked.not_before == datetime(2026, 12, 31, 21, tzinfo=UTC)
    window = asked.window
    assert window is not None
    assert (window.days, window.from_, window.to) == (("sat", "sun"), "22:00", "06:00")
    again = type(asked).model_validate_json(asked.model_dump_json())
    assert again == asked and '"from":"22:00"' in asked.model_dump_json()


def test_a_window_has_defaults() -> None:
    window = parsed(f"{ONE}window: {{days: sat}}\n").migration.window
    assert window is not None
    assert (window.days, window.from_, window.to, window.timezone) == (("sat",), "00:00", "24:00", None)
    window = parsed(f"{ONE}window: {{from: 01:00}}\n").migration.window
    assert window is not None and window.days == DAYS


def test_a_time_without_an_offset_is_that_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        asked = parsed(f"{ONE}not_before: 2026-12-31T22:00\n").migration
    finally:
        monkeypatch.undo()
        time.tzset()
    assert asked.not_before == datetime(2026, 12, 31, 16, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["2026-12-31", "22:00", "tomorrow", "2026-02-30 22:00", "2026-12-31 24:30", "2026-12-31 22:00 CET", "[1]"]
)
def test_what_is_no_date_and_time(text: str) -> None:
    (one,) = problems(f"{ONE}not_before: {text}\n")
    assert (one.code, one.key, one.line) == ("value-invalid", "not_before", 3)


@pytest.mark.parametrize(
    ("window", "code", "key"),
    [
        ("{days: [sat, someday]}", "value-invalid", "window.days"),
        ("{days: []}", "value-invalid", "window.days"),
        ("{from: 25:00}", "value-invalid", "window.from"),
        ("{from: 24:00}", "value-invalid", "window.from"),
        ("{to: 6}", "value-invalid", "window.to"),
        ("{from: 10:00, to: 10:00}", "value-conflict", "window"),
        ("{timezone: Europe/Atlantis}", "value-conflict", "window.timezone"),
        ("{timezone: ../../etc/passwd}", "value-conflict", "window.timezone"),
        ("{until: 10:00}", "key-unknown", "window.until"),
        ("always", "value-invalid", "window"),
    ],
)
def test_errors_of_a_window(window: str, code: str, key: str) -> None:
    (one,) = problems(f"{ONE}window: {window}\n")
    assert (one.code, one.key, one.line) == (code, key, 3)


def test_all_errors_are_listed_at_once() -> None:
    text = f"{ONE}batch: a/b\nafter: ''\nnot_before: soon\nwindow: {{from: noon, to: 1}}\n"
    assert [one.key for one in problems(text)] == ["batch", "after", "not_before", "window.from", "window.to"]


def test_machines_of_one_file_are_one_batch() -> None:
    (one,) = problems(machines("vm_name: a, batch: x", "vm_name: b"))
    assert (one.code, one.key) == ("value-conflict", "batch") and "several batches: x, none" in one.message
    found = spec.parse("batch: x\n" + machines("vm_name: a", "vm_name: b"), default_name="file")
    assert {machine.migration.batch for machine in found} == {"x"}


def test_the_name_of_a_batch() -> None:
    plain, named = parsed(ONE).migration, parsed(f"{ONE}batch: x\n").migration
    assert batch_name([plain], "file") is None and batch_name([plain, plain], "file") == "file"
    assert batch_name([named], "file") == batch_name([named, named], "file") == "x"


@pytest.mark.parametrize(
    ("after", "steps"),
    [
        ({"a": "a"}, "a waits for a"),
        ({"a": "c", "b": "a", "c": "b"}, "a waits for c, c waits for b, b waits for a"),
    ],
)
def test_a_circle_is_an_error(after: dict[str, str], steps: str) -> None:
    (one,) = problems(machines(*(f"vm_name: {name}, after: {other}" for name, other in after.items())))
    assert (one.code, one.key) == ("value-conflict", "after")
    said = one.message.partition(": ")[2].split(", ")
    assert sorted(said) == sorted(steps.split(", "))


def test_a_run_without_a_queue_has_an_order_only() -> None:
    text = machines("vm_name: a, after: [c, elsewhere]", "vm_name: b, after: c", "vm_name: c, window: {days: sat}")
    found = [machine.migration for machine in spec.parse(text, default_name="file")]
    assert [found[number].vm_name for number in in_start_order(found)] == ["c", "a", "b"]
    notes = [without_queue(one, found) for one in found]
    said = [note and note.message.partition(" ha")[0] for note in notes]
    assert said == ["after", None, "window"]
    assert {note.level for note in notes if note} == {"information"}


def test_the_order_of_many_machines_that_wait_for_the_same_ones() -> None:
    """Each layer waits for the one before it: by paths, there are 2**40 ways from the last to the first machine."""
    layers = [(f"left{number}", f"right{number}") for number in range(40)]
    chain = [(layers[0], ()), *((then, first) for first, then in pairwise(layers))]
    lines = [f"vm_name: {name}, after: [{', '.join(before)}]" for names, before in chain for name in names]
    found = [machine.migration for machine in spec.parse(machines(*lines), default_name="file")]
    assert in_start_order(found) == tuple(range(80))


def test_an_unknown_time_zone_is_reported_together_with_other_errors_of_the_window() -> None:
    text = "vmdk: /a.vmdk\nvm_name: a\nwindow: {from: 25:00, days: [], timezone: Europe/Atlantis}\n"
    assert {one.key for one in problems(text)} == {"window.from", "window.days", "window.timezone"}


def test_a_list_without_a_valid_element_is_not_called_empty() -> None:
    assert [one.message for one in problems(f"{ONE}window: {{days: [friday]}}\n")] == [
        "window.days is friday, which is not allowed"
    ]
    assert [one.message for one in problems(f"{ONE}window: {{days: []}}\n")] == ["window.days is empty"]
