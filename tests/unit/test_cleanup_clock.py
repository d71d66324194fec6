"""When a clean-up trusts the wall clock."""

from __future__ import annotations

import pytest

from hyper2kvmd.cli.cleanup_clock import SETTLING_SECONDS, Reading, judged

HOUR, DAY, YEAR = 3600.0, 86_400.0, 365 * 86_400.0
BEFORE = Reading(wall=1_800_000_000.0, since_boot=10 * DAY, boot_id="a")


def later(wall: float, boot: float, boot_id: str = "a") -> Reading:
    return Reading(BEFORE.wall + wall, BEFORE.since_boot + boot, boot_id)


@pytest.mark.parametrize(
    ("now", "trusted"),
    [
        (later(DAY, DAY), True),
        (later(DAY + 60, DAY), True),
        (later(90 * DAY, 90 * DAY), True),
        (later(10 * YEAR, DAY), False),
        (later(-10 * YEAR, DAY), False),
        (later(DAY, -9 * DAY, "b"), True),
        (later(3 * DAY, -9 * DAY, "b"), False),
        (later(-HOUR, -9 * DAY, "b"), False),
        (later(10 * YEAR, DAY, ""), False),
    ],
)
def test_against_the_last_clean_up(now: Reading, trusted: bool) -> None:
    assert (judged(now, BEFORE, None).doubted_since is None) is trusted


@pytest.mark.parametrize(
    ("age", "trusted"), [(None, True), (DAY, True), (-60.0, True), (-HOUR, False), (3 * DAY, False), (10 * YEAR, False)]
)
def test_the_first_one_against_the_database(age: float | None, trusted: bool) -> None:
    newest = None if age is None else BEFORE.wall - age
    assert (judged(BEFORE, None, newest).doubted_since is None) is trusted


def test_after_a_restart_the_database_counts_as_well() -> None:
    """It may have been written long after the last clean-up."""
    assert judged(later(30 * DAY, 0, "b"), BEFORE, BEFORE.wall + 29 * DAY).doubted_since is None
    assert judged(later(DAY, 0, "b"), BEFORE, BEFORE.wall + 10 * DAY).doubted_since is not None


def test_a_clock_that_is_regular_for_half_a_day_is_trusted_again() -> None:
    doubted = judged(later(10 * YEAR, DAY), BEFORE, None)
    soon = judged(later(10 * YEAR + HOUR, DAY + HOUR), doubted, BEFORE.wall)
    assert soon.doubted_since == doubted.doubted_since
    restarted = judged(later(10 * YEAR + 2 * HOUR, 0, "b"), soon, BEFORE.wall)
    assert restarted.doubted_since == doubted.doubted_since
    wait = SETTLING_SECONDS
    assert judged(later(10 * YEAR + 2 * HOUR + wait, wait, "b"), restarted, BEFORE.wall).doubted_since is None


def test_a_second_jump_starts_the_wait_again() -> None:
    doubted = judged(later(10 * YEAR, DAY), BEFORE, None)
    back = judged(later(2 * DAY, 2 * DAY), doubted, BEFORE.wall)
    assert back.doubted_since == back.wall
