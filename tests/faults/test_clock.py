"""The wall clock jumps by ten years, forwards or backwards: nothing is started early, put off or given up."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.accounts import illegal_paths
from tests.faults.conditions import Conditions
from tests.faults.forked import GOOD, PLANNING, Forked, failing
from tests.support.house import until
from tests.support.receivers import webhook

TEN_YEARS = 10 * 365 * 24 * 3600
LOOK_SECONDS = 1.0


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Forked]:
    house = Forked(tmp_path, conditions=Conditions(tmp_path))
    yield house
    house.end()


def until_it_waits(house: Forked, name: str) -> None:
    """It has failed once, and a long or short delay is before the second attempt."""
    house.begin()
    house.drop(f"{name}.yaml", house.script(name, PLANNING, failing("retry")))
    until(lambda: state(house, name) == ("queued", 1), f"{name} waits: {house.log}")


def test_clock_forwards_starts_nothing_early(house: Forked) -> None:
    """Neither at once nor after a restart."""
    assert house.conditions is not None
    house.configure(retry={"max_attempts": 3, "delay": 600, "backoff": 1})
    until_it_waits(house, "later")
    house.conditions.set(clock=TEN_YEARS)
    time.sleep(LOOK_SECONDS)
    assert state(house, "later") == ("queued", 1)
    house.end(signal.SIGKILL)
    house.begin()
    house.drop("good.yaml", house.script("good", PLANNING, GOOD))
    until(lambda: state(house, "good") == ("succeeded", 1), f"the restarted daemon works: {house.log}")
    assert state(house, "later") == ("queued", 1)


def test_clock_backwards_puts_nothing_off(house: Forked) -> None:
    """Neither the retry, nor a job that runs or comes now."""
    assert house.conditions is not None
    house.configure(retry={"max_attempts": 2, "delay": 2, "backoff": 1})
    until_it_waits(house, "soon")
    house.drop("long.yaml", house.script("long", PLANNING, "!rest 1.5", GOOD))
    until(lambda: state(house, "long") == ("running", 1), f"long runs: {house.log}")
    house.conditions.set(clock=-TEN_YEARS)
    house.drop("good.yaml", house.script("good", PLANNING, GOOD))
    books = house.come_to_rest()
    ends = {job["vm_name"]: (job["state"], job["attempt"]) for job in books.jobs}
    assert ends == {"soon": ("failed", 2), "long": ("succeeded", 1), "good": ("succeeded", 1)}
    assert illegal_paths(books) == []


@pytest.mark.parametrize("seconds", [TEN_YEARS, -TEN_YEARS])
def test_clock_gives_up_no_notification_and_puts_none_off(house: Forked, seconds: int) -> None:
    """Neither at once nor after a restart."""
    assert house.conditions is not None
    with webhook(500) as there:
        house.configure(notify=[{"webhook": there.url}], retry={"max_attempts": 1, "delay": 600, "backoff": 1})
        house.begin()
        house.drop("bad.yaml", house.script("bad", PLANNING, failing("permanent")))
        until(lambda: there.posts, f"it was tried: {house.log}")
        house.conditions.set(clock=seconds)
        house.end(signal.SIGKILL)
        house.begin()
        until(lambda: there.accepted, f"it is delivered: {house.log}")
    assert "given up" not in house.log


def state(house: Forked, name: str) -> tuple[str, int] | None:
    rows = house.rows("SELECT vm_name, state, attempt FROM jobs")
    return next(((row["state"], row["attempt"]) for row in rows if row["vm_name"] == name), None)
