"""Lists of jobs and batches on a real SQLite file: filters, orders, pages, and what they say about a job."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin, Refusal, Submission
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Counts, Job, JobFilter, Problem, Sort, State, WaitingFor, Work

ALICE, BOB = Origin(submitter="alice", uid=1000), Origin(submitter="bob", uid=0)
CRASH = Problem(code="worker-crashed", message="the worker died", hint="look at the journal", kind="retry")


def now() -> datetime:
    return datetime.now(UTC)


def submission(name: str, origin: Origin = ALICE, batch: str | None = None, priority: int = 5) -> Submission:
    migration = Migration(vmdk=(Path(f"/{name}.vmdk"),), vm_name=name, priority=priority)
    return Submission(migration, f"{name}{origin.uid}", origin, batch=batch)


def add(store: Store, *asked: Submission) -> list[Job]:
    return [one.job for one in store.submit_file(asked)]


def run(store: Store, *warnings: str, fails: bool = False) -> Job:
    """The next job, run to its end."""
    job = store.claim(now())
    assert job is not None
    for warning in warnings:
        store.record_warning(job.id, job.attempt, warning)
    if fails:
        store.fail(job.id, job.attempt, (CRASH,), keep_stages=False)
    else:
        store.succeed(job.id, job.attempt, "done")
    return job


@pytest.fixture
def filled(store: Store) -> Store:
    """1 b succeeded with a warning, 2 a failed, 3 c queued, 4 d held, 5 e queued and first, 6 rejected."""
    for name, priority in (("b", 9), ("a", 9), ("c", 1), ("d", 5), ("e", 5)):
        add(store, submission(name, BOB if name in "ce" else ALICE, priority=priority))
    run(store, "old", "old")
    run(store, fails=True)
    store.hold(4, "root")
    store.reject_all([Refusal("f", (CRASH,), ALICE)])
    return store


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        (Sort.NEWEST, [6, 5, 4, 3, 2, 1]),
        (Sort.OLDEST, [1, 2, 3, 4, 5, 6]),
        (Sort.START, [1, 2, 4, 5, 3, 6]),
        (Sort.NAME, [2, 1, 3, 4, 5, 6]),
        (Sort.FINISHED, [6, 2, 1, 5, 4, 3]),
    ],
)
def test_orders_and_pages(filled: Store, sort: Sort, order: list[int]) -> None:
    assert [job.id for job in filled.list(sort=sort)] == order
    every = JobFilter(states=tuple(State))
    assert [job.id for job in filled.list(every, 3, 2, sort)] == order[2:5]
    assert filled.list(every, 3, 6, sort) == []


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"states": (State.QUEUED,)}, {3, 5}),
        ({"states": (State.HELD, State.FAILED, State.HELD)}, {2, 4}),
        ({"submitter_uid": 0}, {3, 5}),
        ({"submitter_uid": 0, "vm_name": "c"}, {3}),
        ({"warned": True}, {1}),
        ({"ids": (2, 9, 5)}, {2, 5}),
        ({"ids": (2, 5), "states": (State.QUEUED,)}, {5}),
        ({"batch_id": 1}, set()),
        ({"since": datetime(2020, 1, 1, tzinfo=UTC)}, {1, 2, 3, 4, 5, 6}),
        ({"since": datetime(2999, 1, 1, tzinfo=UTC)}, {3, 4, 5}),
    ],
)
def test_filters(filled: Store, asked: dict[str, object], found: set[int]) -> None:
    filters = JobFilter.model_validate(asked)
    assert {job.id for job in filled.list(filters)} == found
    assert filled.count(filters) == len(found)


def test_files_of_one_name_join_a_batch_while_it_is_active(store: Store) -> None:
    one, two = add(store, submission("a", batch="rack"), submission("b", batch="rack"))
    (three,) = add(store, submission("c", batch="rack"))
    (other,) = add(store, submission("d", BOB, batch="rack"))
    assert (one.batch, one.batch_id, two.batch_id, three.batch_id) == ("rack", 1, 1, 1)
    assert (other.batch, other.batch_id) == ("rack", 2)
    assert add(store, submission("e"))[0].batch_id is None
    for _ in range(5):
        run(store, "old", fails=store.get(2).state is State.QUEUED)
    finished = store.batch(1)
    assert finished.finished == max(job.finished for job in store.list(JobFilter(batch_id=1)) if job.finished)
    assert (finished.counts, finished.warnings) == (Counts(succeeded=1, failed=2), 3)
    (again,) = add(store, submission("a", batch="rack"))
    assert again.batch_id == 3 and store.batch(3).finished is None
    assert [batch.id for batch in store.batches()] == [3, 2, 1]
    assert [batch.id for batch in store.batches(submitter_uid=1000, active=False)] == [1]
    assert [batch.id for batch in store.batches(active=True)] == [3]
    assert (store.count_batches(submitter_uid=1000), store.count_batches(active=False)) == (2, 2)
    assert [batch.id for batch in store.batches(limit=1, offset=1)] == [2]
    with pytest.raises(InvalidInput) as unknown:
        store.batch(9)
    assert unknown.value.code == "batch-unknown"


def test_a_duplicate_leaves_no_batch_and_a_forgotten_one_is_gone(store: Store) -> None:
    add(store, submission("a"))
    (again,) = store.submit_file([submission("a", batch="rack")])
    assert (again.new, again.job.id, store.batches()) == (False, 1, [])
    (last,) = add(store, submission("b", batch="rack"))
    run(store)
    run(store)
    store.forget_jobs([last.id])
    assert store.batches() == []


def test_a_new_priority_counts_at_once(store: Store) -> None:
    add(store, submission("a"))
    (job,) = add(store, submission("b"))
    changed = store.set_priority(job.id, 9, "root")
    assert (changed.priority, store.events(job.id)[-1].message) == (9, "5 to 9 by root")
    assert run(store).id == job.id
    with pytest.raises(InvalidInput, match="priority is not possible"):
        store.set_priority(job.id, 1, "root")


def test_a_waiting_job_says_for_what(store: Store) -> None:
    def reason() -> WaitingFor | None:
        return store.get(1).waiting_for

    add(store, submission("a"))
    assert reason() is WaitingFor.SLOT
    store.set_paused(True)
    assert reason() is WaitingFor.PAUSE and store.list()[0].waiting_for is WaitingFor.PAUSE
    store.hold(1, "root")
    assert reason() is WaitingFor.OPERATOR
    store.release(1, "root")
    store.set_paused(False)
    for attempt, problems, expected in ((1, (), WaitingFor.SPACE), (2, (CRASH,), WaitingFor.RETRY)):
        assert store.claim(now()) is not None and reason() is None
        store.requeue(1, attempt, "later", keep_stages=False, delay_seconds=3600, problems=problems)
        assert reason() is expected
        store.wake([1])
        assert reason() is WaitingFor.SLOT
    store.claim(now())
    store.requeue(1, 3, "later", keep_stages=False, delay_seconds=-3600)
    assert reason() is WaitingFor.SLOT


def test_work_is_summed_by_the_hour(store: Store) -> None:
    hour = datetime(2026, 3, 1, 10, tzinfo=UTC)
    store.record_work(hour + timedelta(minutes=1), bytes_read=5)
    store.record_work(hour + timedelta(minutes=59), bytes_read=6, bytes_written=3)
    store.record_work(hour + timedelta(hours=1), bytes_written=2)
    first, second = store.work_since(hour + timedelta(minutes=30))
    assert first == Work(hour=hour, bytes_read=11, bytes_written=3)
    assert second == Work(hour=hour + timedelta(hours=1), bytes_written=2)
    add(store, submission("a"), submission("b"))
    run(store)
    run(store, fails=True)
    ended = store.work_since(now() - timedelta(hours=1))
    assert (sum(one.succeeded for one in ended), sum(one.failed for one in ended)) == (1, 1)
    store.forget(hour + timedelta(minutes=90))
    assert len(store.work_since(hour)) == len(ended)
