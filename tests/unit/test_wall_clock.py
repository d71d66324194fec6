"""Jumps of the wall clock: how they are seen, and that they end no delay, prolong none and start nothing early."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text, update

from hyper2kvmd.daemon.wall_clock import SETTLING_SECONDS, ClockRecord, WallClock
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.jobs.tables import jobs
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import WaitingFor
from hyper2kvmd.uptime import Uptime, uptime
from tests.support.queue_verbs import CRASH, add, claim, now

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TEN_YEARS = timedelta(days=3653)
LITTLE = timedelta(seconds=2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    yield store
    store.close()


def test_a_jump_is_seen_once_and_doubted_for_a_while() -> None:
    clock = WallClock()
    assert clock.look(NOON, Uptime("a", 100.0)) is None
    assert clock.look(NOON + timedelta(hours=9), Uptime("a", 100.0 + 9 * 3600)) is None, "a long time is no jump"
    assert clock.look(NOON + timedelta(hours=9, minutes=1), Uptime("a", 100.0 + 9 * 3600)) is None, "nor is NTP"
    at = Uptime("a", 50_000.0)
    clock.look(NOON, at)
    for jump in (TEN_YEARS, -TEN_YEARS):
        clock = WallClock(ClockRecord(boot="a", wall=NOON, seconds=50_000.0))
        assert clock.trusted(at)
        assert clock.look(NOON + jump, at) == jump
        assert clock.look(NOON + jump, at) is None
        assert not clock.trusted(Uptime("a", at.seconds + SETTLING_SECONDS - 1))
        assert clock.trusted(Uptime("a", at.seconds + SETTLING_SECONDS))


def test_a_daemon_sees_what_the_one_before_it_recorded() -> None:
    record = ClockRecord(boot="a", wall=NOON, seconds=100.0)
    assert WallClock(record).look(NOON + TEN_YEARS, Uptime("a", 160.0)) is not None
    assert WallClock(record).look(NOON - TEN_YEARS, Uptime("b", 5.0)) == -TEN_YEARS, "time does not run backwards"
    assert WallClock(record).look(NOON + TEN_YEARS, Uptime("b", 5.0)) is None, "the host may have been off for so long"
    doubted = record.with_changes(jumped=99.0)
    for boot, trusted in (("a", False), ("b", True)):
        clock = WallClock(doubted)
        clock.look(NOON + timedelta(seconds=60), Uptime(boot, 160.0))
        assert clock.trusted(Uptime(boot, 160.0)) is trusted


def test_the_record_of_another_boot_or_an_old_one_is_replaced() -> None:
    """Else the next daemon cannot see a jump that happens while none runs."""
    kept = ClockRecord(boot="a", wall=NOON, seconds=100.0)
    for boot, seconds, news in (("a", 200.0, False), ("a", 3700.0, True), ("b", 100.0, True)):
        clock = WallClock(kept)
        assert clock.look(NOON + timedelta(seconds=seconds - 100), Uptime(boot, seconds)) is None
        assert clock.is_news(kept) is news
        assert clock.is_news(None) and not clock.is_news(clock.record)


@pytest.mark.parametrize("jump", [TEN_YEARS, -TEN_YEARS], ids=["forwards", "backwards"])
def test_a_delay_lasts_as_long_as_it_should(store: Store, jump: timedelta) -> None:
    add(store, "a")
    assert store.requeue(claim(store).id, 1, "later", keep_stages=True, delay_seconds=600, problems=(CRASH,))
    store.clock_jumped(now() + jump)
    shown = store.get(1)
    expected = now() + jump + timedelta(seconds=600)
    assert shown.not_before is not None and expected - 30 * LITTLE < shown.not_before < expected + LITTLE
    assert store.claim(now() + jump, since_boot=uptime().seconds + 300) is None
    assert store.claim(now() + jump, since_boot=uptime().seconds + 601) is not None


def test_a_delay_of_an_earlier_boot_begins_anew(store: Store) -> None:
    add(store, "a")
    store.requeue(claim(store).id, 1, "later", keep_stages=True, delay_seconds=600, problems=(CRASH,))
    with store.transaction(writes=True) as connection:
        connection.execute(update(jobs).values(delay_boot="earlier", delay_until=1e9))
    store.recover()
    assert store.claim(now(), since_boot=uptime().seconds + 300) is None
    assert store.claim(now(), since_boot=uptime().seconds + 601) is not None


@pytest.mark.parametrize(
    ("until", "boot"), [(1e9, uptime().boot), ("later", uptime().boot), (1e9, ""), (1e9, None)], ids=str
)
def test_a_delay_whose_record_is_damaged_ends(store: Store, until: object, boot: str | None) -> None:
    add(store, "a")
    store.requeue(claim(store).id, 1, "later", keep_stages=True, delay_seconds=600, problems=(CRASH,))
    with store.transaction(writes=True) as connection:
        connection.execute(
            text("UPDATE jobs SET delay_until = :until, delay_boot = :boot"), {"until": until, "boot": boot}
        )
    store.clock_jumped(now())
    store.recover()
    assert store.claim(now(), since_boot=uptime().seconds + 300) is None
    assert store.claim(now(), since_boot=uptime().seconds + 601) is not None


def submit(store: Store, **keys: object) -> int:
    asked = Migration.model_validate({"vmdk": ("/a",), "vm_name": "a", **keys})
    return store.submit(asked, content_key=str(keys), origin=Origin()).job.id


def test_times_of_day_are_doubted_after_a_jump(store: Store) -> None:
    timed = submit(store, not_before=now() + timedelta(days=365))
    windowed = submit(store, window={"from": "00:00", "to": "24:00", "timezone": "UTC"})
    plain = submit(store)
    jumped = now() + TEN_YEARS
    store.clock_jumped(jumped)
    started = store.claim(jumped, wall_trusted=False)
    assert started is not None and started.id == plain
    assert store.claim(jumped, wall_trusted=False) is None
    assert store.get(windowed).waiting_for in (WaitingFor.WINDOW, WaitingFor.SLOT)
    store.clock_jumped(now())
    found = store.claim(now())
    assert found is not None and found.id == windowed
    assert store.claim(now()) is None, "its time has not come"
    assert store.get(timed).waiting_for is WaitingFor.TIME


def test_a_window_that_was_computed_by_a_wrong_clock_is_computed_again(store: Store) -> None:
    """After a step back, its next opening would be ten years away."""
    hour = now().hour
    window = {"from": f"{(hour + 2) % 24:02}:00", "to": f"{(hour + 3) % 24:02}:00", "timezone": "UTC"}
    number = submit(store, window=window)
    assert store.claim(now() + TEN_YEARS) is None
    shut = store.get(number).not_before
    store.clock_jumped(now())
    assert store.claim(now()) is None
    again = store.get(number).not_before
    assert shut is not None and again is not None and again <= now() + timedelta(days=1)
