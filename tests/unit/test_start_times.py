"""When a job may start: windows by the clock of their time zone, over midnight and over changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hyper2kvmd.model.asked import DAYS, Migration, StartWindow
from hyper2kvmd.model.jobs import Job, State, WaitingFor
from hyper2kvmd.start_times import earliest_start, next_opening, waits_for
from hyper2kvmd.units import local_time

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Santiago")
CLOCK = st.times().map(lambda one: f"{one:%H:%M}")
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)).map(lambda one: one.replace(tzinfo=UTC))


def window(**keys: object) -> StartWindow:
    return StartWindow.model_validate({"timezone": "Europe/Berlin", **keys})


@st.composite
def windows(draw: st.DrawFn) -> StartWindow:
    opens = draw(CLOCK)
    closes = draw(st.one_of(CLOCK, st.just("24:00")).filter(lambda one: one != opens))
    days = draw(st.sets(st.sampled_from(DAYS), min_size=1))
    keys = {"from": opens, "to": closes, "days": tuple(days), "timezone": draw(st.sampled_from(ZONES))}
    return StartWindow.model_validate(keys)


def is_open(asked: StartWindow, moment: datetime) -> bool:
    """By the clock alone."""
    local = moment.astimezone(ZoneInfo(str(asked.timezone)))
    clock, today = local.time().replace(tzinfo=None), DAYS[local.weekday()]
    yesterday = DAYS[(local.weekday() - 1) % 7]
    opens = time.fromisoformat(asked.from_)
    closes = None if asked.to == "24:00" else time.fromisoformat(asked.to)
    if closes is None or opens < closes:
        return today in asked.days and clock >= opens and (closes is None or clock < closes)
    return (today in asked.days and clock >= opens) or (yesterday in asked.days and clock < closes)


@given(windows(), MOMENTS)
@example(window(**{"from": "02:15", "to": "02:45"}), datetime(2026, 3, 28, 2, tzinfo=UTC))
@example(window(**{"from": "02:15", "to": "02:45"}), datetime(2026, 10, 25, 0, 50, tzinfo=UTC))
@example(window(**{"from": "02:45", "to": "02:15"}), datetime(2026, 10, 24, 23, 50, tzinfo=UTC))
def test_a_start_is_inside_the_window_and_comes_within_two_weeks(asked: StartWindow, moment: datetime) -> None:
    start = next_opening(asked, moment)
    assert is_open(asked, start), start
    assert moment <= start <= moment + timedelta(days=15)
    assert next_opening(asked, start) == start


@given(windows(), MOMENTS, st.integers(0, 200))
def test_no_opening_is_left_out_but_where_the_clock_is_put_back(
    asked: StartWindow, moment: datetime, minutes: int
) -> None:
    start = next_opening(asked, moment)
    earlier = moment + timedelta(minutes=minutes)
    zone = ZoneInfo(str(asked.timezone))
    changes = {(start + timedelta(hours=hours)).astimezone(zone).utcoffset() for hours in range(-36, 37, 3)}
    changes |= {(moment + timedelta(hours=hours)).astimezone(zone).utcoffset() for hours in range(-36, 37, 3)}
    if earlier < start and len(changes) == 1:
        assert not is_open(asked, earlier)


@pytest.mark.parametrize(
    ("keys", "moment", "opens"),
    [
        ({}, "2026-11-30 12:34", "2026-11-30 12:34"),
        ({"from": "22:00", "to": "05:00"}, "2026-11-30 12:00", "2026-11-30 22:00"),
        ({"from": "22:00", "to": "05:00"}, "2026-11-30 04:59", "2026-11-30 04:59"),
        ({"from": "22:00", "to": "05:00"}, "2026-11-30 05:00", "2026-11-30 22:00"),
        ({"from": "22:00", "to": "05:00", "days": "sat"}, "2026-11-29 03:00", "2026-11-29 03:00"),
        ({"from": "22:00", "to": "05:00", "days": "sat"}, "2026-11-30 03:00", "2026-12-05 22:00"),
        ({"days": ["sat", "sun"]}, "2026-11-30 03:00", "2026-12-05 00:00"),
        ({"from": "02:30", "to": "04:00"}, "2026-03-29 01:00", "2026-03-29 03:00"),
        ({"from": "02:10", "to": "02:50"}, "2026-03-29 01:00", "2026-03-30 02:10"),
        ({"from": "02:10", "to": "02:50", "days": "sun"}, "2026-03-29 01:00", "2026-04-05 02:10"),
        ({"from": "01:00", "to": "24:00"}, "2026-10-25 00:00", "2026-10-25 01:00"),
    ],
)
def test_the_next_opening(keys: dict[str, object], moment: str, opens: str) -> None:
    at = datetime.fromisoformat(moment).replace(tzinfo=BERLIN)
    assert next_opening(window(**keys), at) == datetime.fromisoformat(opens).replace(tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("not_before", "keys", "start", "reason"),
    [
        (None, None, 12, None),
        (11, None, 12, None),
        (14, None, 14, WaitingFor.TIME),
        (None, {"from": "11:00", "to": "13:00"}, 12, None),
        (None, {"from": "13:00", "to": "15:00"}, 13, WaitingFor.WINDOW),
        (14, {"from": "13:00", "to": "15:00"}, 14, WaitingFor.TIME),
        (14, {"from": "16:00", "to": "17:00"}, 16, WaitingFor.WINDOW),
    ],
)
def test_both_limits_count(
    not_before: int | None, keys: dict[str, object] | None, start: int, reason: WaitingFor | None
) -> None:
    day = datetime(2026, 11, 30, tzinfo=UTC)
    asked = Migration(
        vm_name="a",
        not_before=None if not_before is None else day.replace(hour=not_before),
        window=None if keys is None else StartWindow.model_validate({**keys, "timezone": "UTC"}),
    )
    assert earliest_start(asked, day.replace(hour=12)) == (day.replace(hour=start), reason)


def test_the_window_of_the_host_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = StartWindow.model_validate({"from": "12:00", "to": "13:00"})
    for zone, hour in (("Asia/Kolkata", (6, 30)), (":UTC", (12, 0))):
        monkeypatch.setenv("TZ", zone)
        assert next_opening(asked, datetime(2026, 11, 30, tzinfo=UTC)) == datetime(2026, 11, 30, *hour, tzinfo=UTC)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (WaitingFor.WINDOW, "window, opens "),
        (WaitingFor.TIME, "time, starts after "),
        (WaitingFor.RETRY, "retry, next try "),
        (WaitingFor.SPACE, "space, next try "),
    ],
)
def test_a_waiting_job_says_what_happens_at_which_time(reason: WaitingFor, text: str) -> None:
    moment = datetime(2026, 12, 4, 20, 0, tzinfo=UTC)
    job = Job(id=1, state=State.QUEUED, vm_name="web01", priority=5, content_key="k", created=moment)
    assert waits_for(job.with_changes(waiting_for=reason, not_before=moment)) == f"{text}{local_time(moment)}"
    assert waits_for(job.with_changes(waiting_for=WaitingFor.SLOT, not_before=moment)) == "slot"
    assert waits_for(job) == ""
