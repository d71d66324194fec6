"""Sizes, durations and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hyper2kvmd.units import about, duration, local_time, size


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (13314398618, "12.4 GiB"), (62 << 40, "62.0 TiB")],
)
def test_sizes_have_binary_units(count: int, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (4.2, "4.2 s"),
        (59.9, "59.9 s"),
        (190, "3 min 10 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.5, "less than a minute"),
        (60, "less than a minute"),
        (61, "about 2 min"),
        (3541, "about 1 h 0 min"),
        (7500, "about 2 h 5 min"),
    ],
)
def test_estimates_are_rounded_up_to_minutes(seconds: float, shown: str) -> None:
    assert about(seconds) == shown


def test_a_time_has_its_offset() -> None:
    moment = datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)
    shown = local_time(moment)
    assert datetime.strptime(shown, "%Y-%m-%d %H:%M:%S %z") == moment
