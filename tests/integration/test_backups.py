"""Backups of a database that is in use, on real file systems."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from hyper2kvmd.jobs.backups import BY_HAND
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin, Submission
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import State
from tests.support.file_systems import file_system
from tests.support.house import House, until
from tests.support.queue_verbs import add, claim, content_key
from tests.support.spooled_queue import Queue

JOBS = 1000


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    house.configure()
    yield house
    house.close()


def test_a_backup_made_while_jobs_are_written_is_the_database_of_one_moment(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    written = threading.Event()

    def write() -> None:
        for first in range(0, JOBS, 10):
            queue.store.submit_all([[_submission(number)] for number in range(first, first + 10)])
            job = claim(queue.store)
            queue.store.succeed(job.id, job.attempt, "")
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    counts = [0]
    while not written.is_set() or counts[-1] < JOBS:
        counts.append(_require_whole(queue.backups.make(BY_HAND)))
        written.wait(0.2)
    writer.join()
    assert counts == sorted(counts) and any(0 < count < JOBS for count in counts), counts

    queue.restore()
    assert {state: number for state, number in queue.store.overview()[0] if number} == {
        State.HELD: JOBS - JOBS // 10,
        State.SUCCEEDED: JOBS // 10,
    }
    assert add(queue.store, "new").id > JOBS


def _submission(number: int) -> Submission:
    migration = Migration(vm_name=f"vm{number}", vmdk=(Path("/a.vmdk"),))
    return Submission(migration, content_key(number), Origin(submitter="root", uid=0))


def _require_whole(backup: Path) -> int:
    """How many jobs it has: all up to a number, each with its history."""
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        numbers = [row[0] for row in connection.execute("SELECT id FROM jobs ORDER BY id")]
        told = [
            row[0] for row in connection.execute("SELECT job_id FROM events WHERE kind = 'submitted' ORDER BY job_id")
        ]
        ended = connection.execute("SELECT id FROM jobs WHERE state = 'succeeded' ORDER BY id").fetchall()
        said = connection.execute("SELECT job_id FROM events WHERE kind = 'succeeded' ORDER BY job_id").fetchall()
    assert numbers == told == list(range(1, len(numbers) + 1)) and ended == said
    Store(f"sqlite:///{backup}").close()
    return len(numbers)


@pytest.mark.root
def test_a_backup_without_space_is_reported_and_stops_nothing(house: House, tmp_path: Path) -> None:
    with file_system(tmp_path, 8) as full:
        folder = full / "backups"
        folder.mkdir()
        with (full / "filler").open("wb") as filler, suppress(OSError):
            while True:
                filler.write(b"x" * 65536)
                filler.flush()
        house.configure(backups={"directory": str(folder)})
        house.start()
        until(lambda: "[backup-failed]" in house.log, "the failure is logged")
        house.drop("a.yaml", house.migration("a", "plan", "convert", "publish"))
        house.reaches(1, State.SUCCEEDED)
        assert list(folder.iterdir()) == [], "no part of a backup stays"
        assert "Traceback" not in house.log
        assert house.stop() == 0
