"""A database that is lost: what the spool knows is entered into a new one, as a whole, and no number is used again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.cli import database_repair
from hyper2kvmd.daemon import incoming, opening
from hyper2kvmd.jobs import salvaged, sqlite
from hyper2kvmd.model.jobs import State
from tests.support.killed_lines import Line, killed_before, lines_of
from tests.support.queue_verbs import claim
from tests.support.spooled_queue import Queue

STEPS: tuple[Callable[..., Any], ...] = (
    database_repair.rebuild,
    database_repair._replace,
    sqlite.replace_with,
    sqlite.complete_replacement,
    sqlite.put_in_place,
    salvaged.take_over,
    salvaged.continue_numbers,
    opening._require_same_queue,
)


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    """With jobs 1 to 4 of each end, and job 5 in active/."""
    monkeypatch.setattr(incoming, "STABLE_SECONDS", 0)
    queue = Queue(tmp_path)
    queue.store.close()
    queue.start()
    for name in ("succeeded.yaml", "cancelled.yaml", "failed.yaml", "rejected.yaml", "waits.yaml"):
        if name == "rejected.yaml":
            (queue.spool_dir / "incoming" / name).write_text("vmdk: [")
            queue.scan()
        else:
            queue.drop(name)
        if name in ("succeeded.yaml", "failed.yaml"):
            job = claim(queue.store)
            if name == "failed.yaml":
                queue.store.fail(job.id, job.attempt, (), keep_stages=False)
            else:
                queue.store.succeed(job.id, job.attempt, "")
        elif name == "cancelled.yaml":
            queue.store.cancel(2, "root")
        queue.scan()
    yield queue
    queue.store.close()


HISTORY = {
    1: ("succeeded", State.SUCCEEDED),
    2: ("cancelled", State.CANCELLED),
    3: ("failed", State.FAILED),
    4: ("rejected", State.REJECTED),
}


def history(queue: Queue) -> dict[int, tuple[str, State]]:
    return {job.id: (job.vm_name, job.state) for job in queue.store.list() if not job.state.active}


def test_finished_jobs_are_listed_and_files_in_active_become_jobs(queue: Queue) -> None:
    before = {job.id: job for job in queue.store.list()}
    done = queue.rebuild()
    assert done["finished_jobs"] == "4 found in the spool"
    assert history(queue) == HISTORY
    for number in HISTORY:
        old, new = before[number], queue.store.get(number)
        assert (new.submitter, new.submitter_uid, new.problems) == (old.submitter, old.submitter_uid, old.problems)
        assert (new.migration, new.attempt) == (old.migration, old.attempt)
        assert queue.store.events(number)[-1].message == salvaged.FOUND
    (waiting,) = (job for job in queue.store.list() if job.state.active)
    assert (waiting.vm_name, waiting.id) == ("waits", 1006)
    queue.store.retry(3, "root")
    queue.scan()
    assert len(queue.files("active")) == 2 and queue.files("failed") == ["cancelled.yaml"]
    again = claim(queue.store)
    assert again.id == 3 and queue.store.succeed(3, again.attempt, "")
    queue.scan()
    assert queue.files("done") == ["failed.yaml", "succeeded.yaml"]


def test_the_daemon_enters_them_when_it_starts_without_a_database(queue: Queue) -> None:
    identity = queue.store.identity()
    queue.store.close()
    for file in queue.backups.database.parent.glob("q.sqlite3*"):
        file.unlink()
    queue.start()
    queue.scan()
    assert history(queue) == HISTORY and queue.store.identity() == identity
    assert [job.id for job in queue.store.list() if job.state.active] == [1005]


@pytest.mark.parametrize(
    ("by", "lost", "every"),
    [
        ("command", True, 3),
        ("daemon", True, 3),
        pytest.param("command", True, 1, marks=pytest.mark.slow),
        pytest.param("command", False, 1, marks=pytest.mark.slow),
        pytest.param("daemon", True, 1, marks=pytest.mark.slow),
    ],
)
def test_a_death_at_any_step_loses_no_job_and_repeats_no_number(queue: Queue, by: str, lost: bool, every: int) -> None:
    """The next start of the daemon finds the former database or the new one, as a whole."""
    queue.store.close()
    path = queue.backups.database
    whole = path.read_bytes()

    def work() -> None:
        if by == "command":
            database_repair.rebuild(queue.config, queue.backups)
        else:
            queue.start()

    def begin() -> None:
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        if not lost:
            path.write_bytes(whole)

    begin()
    steps = [line for line in lines_of(work, {Path(inspect.getfile(step)) for step in STEPS}) if _is_step(line)]
    assert len(steps) > 5
    for line in steps[::every]:
        begin()
        assert killed_before(line, work), line
        queue.start()
        assert history(queue) == HISTORY, line
        queue.scan()
        (waiting,) = (job for job in queue.store.list() if job.state.active)
        assert waiting.id in (5, 1005, 1006), line
        queue.store.close()


def _is_step(line: Line) -> bool:
    for step in STEPS:
        code, first = inspect.getsourcelines(step)
        if inspect.getfile(step) == line[0] and first < line[1] < first + len(code):
            return True
    return False
