"""Which backups of the database are due and which ones stay, also if the clock was wrong for a while."""

from __future__ import annotations

import fcntl
import re
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hyper2kvmd.jobs.backups import DAILY, Backups

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    database = tmp_path / "jobs.sqlite3"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE t (x)")
    (tmp_path / "backups").mkdir()
    return Backups.of(database, None, 3)


def have(backups: Backups, *ages: timedelta) -> list[str]:
    """Daily backups that were made so long ago, by their names."""
    names = [f"jobs.sqlite3.{datetime.now(UTC) - age:%Y%m%dT%H%M%SZ}.{DAILY}" for age in ages]
    for name in names:
        (backups.folder / name).touch()
    return names


@pytest.mark.parametrize(
    ("ages", "due"),
    [
        ((), True),
        ((HOUR, DAY), False),
        ((25 * HOUR,), True),
        ((-DAY / 1440,), False),
        ((HOUR, -3650 * DAY), False),
        ((25 * HOUR, -3650 * DAY), True),
        ((-3650 * DAY,), True),
    ],
)
def test_a_backup_of_the_future_is_no_reason_to_make_or_omit_one(
    backups: Backups, ages: tuple[timedelta, ...], due: bool
) -> None:
    have(backups, *ages)
    assert backups.due() is due


def test_a_backup_of_the_future_goes_first(backups: Backups) -> None:
    """The clock had jumped forwards, and was corrected."""
    first, second, *_ = have(backups, 25 * HOUR, 49 * HOUR, 73 * HOUR, -3650 * DAY)
    made = backups.make(DAILY).name
    assert [one.path.name for one in backups.found()] == [made, first, second]


def test_a_clock_that_was_put_back_removes_one_backup_a_day(backups: Backups) -> None:
    """The backups with the right time seem to be of the future."""
    first, second, _ = have(backups, -3650 * DAY, -3649 * DAY, -3648 * DAY)
    made = backups.make(DAILY).name
    assert [one.path.name for one in backups.found()] == [made, first, second]
    assert not backups.due()


def test_what_a_killed_backup_left_is_removed_by_the_next_one(backups: Backups) -> None:
    for name in (f".jobs.sqlite3.{DAILY}.partial", f".jobs.sqlite3.{DAILY}.partial-journal"):
        (backups.folder / name).touch()
    made = backups.make(DAILY)
    assert list(backups.folder.iterdir()) == [made]


def test_a_backup_waits_for_another_one_of_its_kind(backups: Backups) -> None:
    draft = backups.folder / f".jobs.sqlite3.{DAILY}.partial"
    with ThreadPoolExecutor(1) as beside, draft.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b"half a backup")
        other.flush()
        making = beside.submit(backups.make, DAILY)
        waits = re.compile(rf"^\d+: -> FLOCK .*:{draft.stat().st_ino} ", re.MULTILINE)
        until = time.monotonic() + 60
        while not waits.search(Path("/proc/locks").read_text()) and not making.done() and time.monotonic() < until:
            time.sleep(0.02)
        assert draft.read_bytes() == b"half a backup"
        draft.rename(backups.folder / "the other one")
    assert making.result().exists()
    assert sorted(path.name for path in backups.folder.iterdir()) == [making.result().name, "the other one"]
