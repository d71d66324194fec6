"""What submitters can demand of a queue in which jobs wait for times, windows and each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hyper2kvmd import spec
from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.jobs import changes, dependencies
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin, Submission
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import WARNED

ALICE, BOB = 64_001, 64_002


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59Z", "9000-01-01 00:00Z"])
def test_a_time_at_the_end_of_the_calendar(moment: str) -> None:
    """There is no window after it, and no local time in zones east of Greenwich."""
    text = f"vmdk: /exports/web01.vmdk\nnot_before: {moment}\nwindow: {{from: '22:00', to: '04:00'}}\n"
    with pytest.raises(spec.Rejected) as refused:
        spec.parse(text, base=None, home=None, default_name="web01")
    assert [(one.code, one.key) for one in refused.value.problems] == [("value-invalid", "not_before")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    yield store
    store.close()


def wave(name: str, size: int, *after: str, uid: int = ALICE) -> list[Submission]:
    origin = Origin(submitter=f"user{uid}", uid=uid)
    names = [f"{name}-{number}" for number in range(size)]
    keys = [{"vmdk": ("/exports/disk.vmdk",), "vm_name": one, "after": after} for one in names]
    return [Submission(Migration.model_validate(one), f"{uid}{one['vm_name']}", origin, (), name) for one in keys]


def test_waves_that_multiply(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job of a wave waits for each of the one before: what is recorded and looked at is their product."""
    monkeypatch.setattr(dependencies, "MAX_NEEDED", 9)
    store.submit_file(wave("first", 3))
    store.submit_file(wave("second", 3, "first"))
    with pytest.raises(InvalidInput) as refused:
        store.submit_file(wave("third", 1, "second-2"))
    assert refused.value.code == "after-many"
    store.submit_file(wave("third", 1))
    store.submit_file(wave("first", 1, uid=BOB))
    store.submit_file(wave("second", 1, "first", uid=BOB))
    by_operator = wave("fourth", 1, "second")
    store.submit_file([replace(one, origin=replace(one.origin, operator=True)) for one in by_operator])


def test_a_job_that_is_held_because_of_another_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "EVENTS_KEPT", 5)
    (needed,), (asked,) = store.submit_file(wave("db", 1)), store.submit_file(wave("web", 1, "db-0"))
    for _ in range(10):
        store.cancel(needed.job.id, "user")
        store.retry(needed.job.id, "user")
    assert len(store.events(asked.job.id)) <= 8


def test_a_mac_address_of_another_submitters_machine(store: Store) -> None:
    """A submitter chooses the addresses in a `.vmx`, and must not learn the names of machines of others by them."""
    mac = "00:50:56:00:00:01"
    for number, (uid, name) in enumerate(((ALICE, "salaries"), (BOB, "probe"), (BOB, "twin")), start=1):
        store.submit_file(wave(name, 1, uid=uid))
        assert store.claim(datetime.now(UTC))
        store.record_macs(number, 1, [mac])
    (probed,) = (event.message for event in store.events(2) if event.kind == WARNED)
    assert "salaries" not in probed and "the machine of job 1" in probed
    assert any("so has probe-0 of job 2" in event.message for event in store.events(3))
