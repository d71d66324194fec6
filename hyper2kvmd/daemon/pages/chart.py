"""The throughput of the last day as bars of an SVG, and the same in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from hyper2kvmd import units
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import Work

HOURS = 24
HEIGHT = 100
WIDTH = 24
"""Of one bar with the gap beside it."""
GAP = 4


class Bar(Frozen):
    x: int
    y: float
    width: int
    height: float
    label: str
    """The hour in local time, such as `13:00`."""


class Chart(Frozen):
    bars: tuple[Bar, ...]
    hours: tuple[Work, ...]
    """The same hours with their figures, the oldest first."""
    words: str
    """What the picture shows."""
    most: str
    """The bytes of the highest bar."""
    width: int = HOURS * WIDTH
    height: int = HEIGHT


def draw(worked: Sequence[Work], now: datetime) -> Chart | None:
    """The last HOURS hours up to `now`; None if nothing was read in them."""
    hours = _every_hour(worked, now)
    most = max(hour.bytes_read for hour in hours)
    if most == 0:
        return None
    bars = tuple(_bar(number, hour, most) for number, hour in enumerate(hours))
    total = sum(hour.bytes_read for hour in hours)
    busiest = max(hours, key=lambda hour: hour.bytes_read)
    words = (
        f"{units.size(total)} were read in the last {HOURS} hours; the most within an hour was "
        f"{units.size(most)}, from {_clock(busiest.hour)}."
    )
    return Chart(bars=bars, hours=hours, words=words, most=units.size(most))


def _every_hour(worked: Sequence[Work], now: datetime) -> tuple[Work, ...]:
    known = {hour.hour: hour for hour in worked}
    last = now.replace(minute=0, second=0, microsecond=0)
    begins = [last - timedelta(hours=back) for back in reversed(range(HOURS))]
    return tuple(known.get(begin) or Work(hour=begin) for begin in begins)


def _bar(number: int, hour: Work, most: int) -> Bar:
    height = round(HEIGHT * hour.bytes_read / most, 1)
    return Bar(x=number * WIDTH, width=WIDTH - GAP, y=HEIGHT - height, height=height, label=_clock(hour.hour))


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone():%H:%M}"
