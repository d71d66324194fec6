"""The speed of a step is that of the last seconds, and its end is estimated from it."""

from __future__ import annotations

import pytest

from hyper2kvmd.daemon.pace import RECENT_SECONDS, Pace


def test_a_steady_step() -> None:
    pace = Pace(1000)
    for second in range(6):
        pace.advance_to(100 * second, float(second))
    assert pace.progress == 0.5
    assert pace.bytes_per_second(5.0) == pytest.approx(100.0)
    assert pace.eta_seconds(5.0) == pytest.approx(5.0)


def test_what_is_long_ago_does_not_count() -> None:
    pace = Pace(10_000)
    for second in range(61):
        pace.advance_to(100 * second if second <= 30 else 3000 + 10 * (second - 30), float(second))
    assert pace.bytes_per_second(60.0) == pytest.approx(10.0)


def test_a_step_that_stands_still_has_no_end() -> None:
    pace = Pace(1000)
    pace.advance_to(0, 0.0)
    pace.advance_to(500, 5.0)
    assert pace.bytes_per_second(5.0 + RECENT_SECONDS) == 0
    assert pace.eta_seconds(5.0 + RECENT_SECONDS) is None


def test_a_step_that_has_just_begun_has_no_speed() -> None:
    pace = Pace(1000)
    assert pace.bytes_per_second(0.0) is None
    pace.advance_to(400, 0.0)
    pace.advance_to(500, 0.5)
    assert pace.bytes_per_second(0.5) is None
    assert pace.bytes_per_second(2.0) == pytest.approx(50.0)


def test_a_step_without_a_measure() -> None:
    pace = Pace(None)
    assert (pace.progress, pace.bytes_per_second(5.0), pace.eta_seconds(5.0)) == (None, None, None)
