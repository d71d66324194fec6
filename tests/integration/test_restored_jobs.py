"""What becomes of jobs and files when a backup of the database is restored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.daemon import incoming
from hyper2kvmd.jobs import restored
from hyper2kvmd.jobs.backups import BY_HAND
from hyper2kvmd.jobs.moves import Intent, MoveKind
from hyper2kvmd.model.jobs import State
from tests.support.killed_lines import killed_before, line_of
from tests.support.queue_verbs import claim
from tests.support.spooled_queue import Queue


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    monkeypatch.setattr(incoming, "STABLE_SECONDS", 0)
    queue = Queue(tmp_path)
    yield queue
    queue.store.close()


def test_a_job_that_was_retried_after_the_backup_does_not_count_as_failed(queue: Queue) -> None:
    """Its file is in active/ again, or it has ended a second time."""
    for number, name in enumerate(("waits.yaml", "ended.yaml", "failed.yaml"), 1):
        queue.drop(name)
        queue.store.cancel(number, "root")
        queue.scan()
    queue.backups.make(BY_HAND)
    for number in (1, 2):
        queue.store.retry(number, "root")
    queue.store.hold(1, "root")
    job = claim(queue.store)
    queue.store.succeed(job.id, job.attempt, "")
    queue.scan()
    assert (len(queue.files("active")), queue.files("done"), queue.files("failed")) == (
        1,
        ["ended.yaml"],
        ["failed.yaml"],
    )

    done = queue.restore()
    assert (done["held"], done["ended_since"], done["continue"]) == ([1], [2], [])
    states = {job.id: job.state for job in queue.store.list()}
    assert states == {1: State.HELD, 2: State.SUCCEEDED, 3: State.CANCELLED}
    queue.store.release(1, "root")
    assert claim(queue.store).id == 1
    queue.store.cancel(1, "root")
    assert queue.store.finish_cancelled(1, queue.store.get(1).attempt, keep_stages=False)
    queue.scan()
    assert queue.files("active") == [] and queue.files("failed") == ["failed.yaml", "waits.yaml"]


def test_moves_of_the_backup_are_not_made_again(queue: Queue) -> None:
    """The place of a file may be that of another one now."""
    queue.store.plan_moves([Intent(MoveKind.REMOVE, "done/web.yaml")])
    queue.backups.make(BY_HAND)
    (queue.spool_dir / "done" / "web.yaml").write_text("of another job")
    queue.restore()
    assert queue.files("done") == ["web.yaml"] and queue.store.open_moves(MoveKind.REMOVE) == []


def test_a_restore_that_ends_half_way_changes_nothing(queue: Queue) -> None:
    """Jobs of the backup would run a second time."""
    queue.backups.make(BY_HAND)
    queue.drop("a.yaml")
    queue.store.close()
    assert killed_before(line_of(restored._rows), queue.restore)
    queue.open()
    assert [job.vm_name for job in queue.store.list()] == ["a"]
