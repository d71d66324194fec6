"""When a job may start: not before a time, and within its window, by the clock of the window's time zone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hyper2kvmd.model.asked import DAYS, Migration, StartWindow
from hyper2kvmd.model.jobs import Job, WaitingFor
from hyper2kvmd.units import local_time

LOCAL_TIME = Path("/etc/localtime")
DAYS_AHEAD = 30
"""A window opens each week, but in one that has no such time because the clock is put forward."""
EXPECTED: Mapping[WaitingFor, str] = {
    WaitingFor.WINDOW: "opens",
    WaitingFor.TIME: "starts after",
    WaitingFor.RETRY: "next try",
    WaitingFor.SPACE: "next try",
}
"""What happens at `Job.not_before`, by the reason for it."""


def earliest_start(migration: Migration, moment: datetime) -> tuple[datetime, WaitingFor | None]:
    """The first instant from `moment` at which the job may start, and what it waits for until then."""
    wanted = max(moment, migration.not_before or moment)
    opens = next_opening(migration.window, wanted) if migration.window else wanted
    if opens <= moment:
        return opens, None
    return opens, WaitingFor.WINDOW if opens > wanted else WaitingFor.TIME


def expected_start(job: Job) -> str:
    """`opens 2026-12-04 21:00:00 +0100`, or what else happens next and when. Empty if no time is known."""
    if job.waiting_for is None or job.not_before is None or job.waiting_for not in EXPECTED:
        return ""
    return f"{EXPECTED[job.waiting_for]} {local_time(job.not_before)}"


def waits_for(job: Job) -> str:
    """`window, opens 2026-12-04 21:00:00 +0100`, or `slot`. Empty for a job that does not wait."""
    if job.waiting_for is None:
        return ""
    return ", ".join(filter(None, (job.waiting_for.value, expected_start(job))))


def next_opening(window: StartWindow, moment: datetime) -> datetime:
    """The first instant from `moment` at which the window is open, in its time zone."""
    zone = _zone(window.timezone) or _local_zone()
    today = moment.astimezone(zone).date()
    for day in (today + timedelta(days=number) for number in range(-1, DAYS_AHEAD)):
        if DAYS[day.weekday()] not in window.days:
            continue
        opens, closes = _on(window, day, zone)
        if max(opens, moment) < closes:
            return max(opens, moment).astimezone(zone)
    raise AssertionError("a window opens at least every other week")


def missing_zone(migration: Migration) -> str | None:
    """The time zone of its window, if this host does not have it: it had it when the migration was submitted."""
    name = migration.window and migration.window.timezone
    return name if name and not is_zone(name) else None


def is_zone(name: str) -> bool:
    return _zone(name) is not None


def _zone(name: str | None) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _local_zone() -> ZoneInfo:
    if named := _zone(os.environ.get("TZ", "").removeprefix(":")):
        return named
    try:
        with LOCAL_TIME.open("rb") as file:
            return ZoneInfo.from_file(file, "localtime")
    except (OSError, ValueError):
        return ZoneInfo("UTC")


def _on(window: StartWindow, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """When the window that opens on that day opens and closes, in UTC; it may close before it opens, and is shut then.

    Where the clock is put back, times occur twice. The window is the shorter one of those that are possible.
    """
    closing_day = day if window.to > window.from_ else day + timedelta(days=1)
    closes = _instant(closing_day, window.to, zone, fold=0)
    latest = _instant(day, window.from_, zone, fold=1)
    return (latest, closes) if latest < closes else (_instant(day, window.from_, zone, fold=0), closes)


def _instant(day: date, clock: str, zone: ZoneInfo, fold: int) -> datetime:
    """When the clock shows that time, or a later one if the time is left out because the clock is put forward."""
    if clock == "24:00":
        day, clock = day + timedelta(days=1), "00:00"
    wanted = datetime.combine(day, time.fromisoformat(clock))
    found = wanted.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    if found.astimezone(zone).replace(tzinfo=None) == wanted:
        return found
    before = wanted.replace(tzinfo=zone, fold=1).astimezone(UTC)
    after = wanted.replace(tzinfo=zone, fold=0).astimezone(UTC)
    while after - before > timedelta(seconds=1):  # the clock is put forward between the two
        middle = before + (after - before) / 2
        before, after = (before, middle) if _shows_later(middle, wanted, zone) else (middle, after)
    return after.replace(microsecond=0)


def _shows_later(moment: datetime, wanted: datetime, zone: ZoneInfo) -> bool:
    return moment.astimezone(zone).replace(tzinfo=None) >= wanted
