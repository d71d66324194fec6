"""The queue's verbs on real databases: order, fences, history, and who may change what."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import DataError

from hyper2kvmd.errors import InvalidInput, NotFound
from hyper2kvmd.jobs.schema import MIGRATIONS, known_steps
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin, Refusal
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Image, Layout
from hyper2kvmd.model.jobs import Counts, JobFilter, PastRate, Stage, State
from hyper2kvmd.model.results import Finished
from hyper2kvmd.uptime import uptime
from tests.support.benches import plan_for
from tests.support.queue_verbs import CRASH, add, claim, kinds, now

PLANNED = plan_for((), Layout(tables=()))
IMAGE = Image(disks=(), format="raw", layout=PLANNED.layout)
FINISHED = Finished(plan=PLANNED)


def test_a_job_comes_back_as_it_went_in(store: Store) -> None:
    job = add(store, "web01", priority=7)
    again = store.get(job.id)
    assert again == job
    assert again.migration is not None and again.migration.vmdk == (Path("/images/web01.vmdk"),)
    assert again.state is State.QUEUED and again.created.tzinfo is not None


def test_highest_priority_first_then_oldest(store: Store) -> None:
    for name, priority in (("a", 5), ("b", 9), ("c", 5), ("d", 9)):
        add(store, name, priority)
    assert [claim(store).vm_name for _ in range(4)] == ["b", "d", "a", "c"]
    assert store.claim(now()) is None


def test_same_content_is_one_job_while_active_and_a_new_one_after(store: Store) -> None:
    migration = Migration(vmdk=(Path("/a.vmdk"),), vm_name="a")
    first = store.submit(migration, content_key="k", origin=Origin())
    second = store.submit(migration, content_key="k", origin=Origin(name="again.yaml"))
    assert (first.new, second.new, second.job.id) == (True, False, first.job.id)
    job = claim(store)
    assert not store.submit(migration, content_key="k", origin=Origin()).new
    assert store.succeed(job.id, job.attempt, "done")
    third = store.submit(migration, content_key="k", origin=Origin())
    assert third.new and third.job.id != job.id
    assert kinds(store, job.id) == ["submitted", "duplicate", "claimed", "duplicate", "succeeded"]


def test_of_many_duplicates_in_a_row_one_is_in_the_history(store: Store) -> None:
    job = add(store, "a")
    for _ in range(5):
        add(store, "a")
    claim(store)
    add(store, "a")
    assert kinds(store, job.id) == ["submitted", "duplicate", "claimed", "duplicate"]


def test_a_delay_is_honoured_and_wake_lifts_it(store: Store) -> None:
    add(store, "a")
    job = claim(store)
    assert store.requeue(job.id, 1, "later", keep_stages=True, delay_seconds=3600)
    assert store.claim(now()) is None
    assert store.claim(now(), since_boot=uptime().seconds + 7200) is not None
    assert store.requeue(job.id, 2, "later", keep_stages=True, delay_seconds=3600)
    store.wake([job.id])
    assert claim(store).attempt == 3


def test_every_write_of_an_older_attempt_is_fenced_off(store: Store) -> None:
    add(store, "a")
    old = claim(store)
    assert store.requeue(old.id, old.attempt, "lost", keep_stages=True)
    new = claim(store)
    before = store.get(new.id), store.events(new.id)
    for attempt in (old.attempt, new.attempt + 1):
        assert not store.start_stage(old.id, attempt, Stage.PLAN)
        assert not store.finish_stage(old.id, attempt, Stage.PLAN, 1.0, PLANNED)
        assert not store.record_progress(old.id, attempt, 0.5)
        assert not store.record_warning(old.id, attempt, "w")
        assert not store.record_machine(old.id, attempt, ["m"])
        assert not store.record_conversion(old.id, attempt, 1, 1.0)
        assert not store.reserve(old.id, attempt, 5)
        assert not store.succeed(old.id, attempt, "n")
        assert not store.fail(old.id, attempt, (CRASH,), keep_stages=False)
        assert not store.requeue(old.id, attempt, "n", keep_stages=True)
        assert not store.finish_cancelled(old.id, attempt, keep_stages=False)
    assert (store.get(new.id), store.events(new.id)) == before
    assert store.finished_stages(new.id) == Finished()
    assert store.succeed(new.id, new.attempt, "n")
    assert not store.start_stage(new.id, new.attempt, Stage.PLAN)


def test_failures_count_failed_tries_only_and_a_retry_by_hand_begins_anew(store: Store) -> None:
    add(store, "a")
    job = claim(store)
    store.requeue(job.id, 1, "interrupted", keep_stages=False)
    assert store.failures(job.id) == 0
    claim(store)
    store.requeue(job.id, 2, "crashed", keep_stages=True, problems=(CRASH,))
    assert store.failures(job.id) == 1
    claim(store)
    store.fail(job.id, 3, (CRASH,), keep_stages=True)
    failed = store.get(job.id)
    assert failed.state is State.FAILED and failed.problems == (CRASH,) and failed.finished is not None
    assert store.failures(job.id) == 2
    assert store.retry(job.id, "root").state is State.QUEUED
    assert store.failures(job.id) == 0
    assert claim(store).attempt == 4


def test_retry_is_refused_while_the_same_content_is_active(store: Store) -> None:
    old = add(store, "a")
    store.cancel(old.id, "root")
    add(store, "a")
    with pytest.raises(InvalidInput, match="active as another job") as refusal:
        store.retry(old.id, "root")
    assert refusal.value.code == "job-duplicate"


def test_hold_release_and_their_refusals(store: Store) -> None:
    job = add(store, "a")
    assert store.hold(job.id, "root").state is State.HELD
    assert store.claim(now()) is None
    with pytest.raises(InvalidInput, match="is held"):
        store.hold(job.id, "root")
    assert store.release(job.id, "root").state is State.QUEUED
    claim(store)
    with pytest.raises(InvalidInput) as refusal:
        store.release(job.id, "root")
    assert refusal.value.code == "job-state"
    with pytest.raises(InvalidInput) as unknown:
        store.hold(99, "root")
    assert unknown.value.code == "job-unknown"


def test_cancel_ends_a_waiting_job_and_marks_a_running_one(store: Store) -> None:
    waiting = add(store, "a")
    assert store.cancel(waiting.id, "root").state is State.CANCELLED
    running = add(store, "b")
    claim(store)
    assert store.cancel(running.id, "root").state is State.RUNNING
    assert store.finish_cancelled(running.id, 1, keep_stages=False)
    assert store.get(running.id).state is State.CANCELLED
    assert kinds(store, running.id) == ["submitted", "claimed", "cancel-requested", "cancelled"]


def test_recover_requeues_what_a_dead_daemon_left_but_keeps_a_cancel(store: Store) -> None:
    add(store, "a")
    add(store, "b")
    kept, cancelled = claim(store), claim(store)
    store.finish_stage(kept.id, 1, Stage.PLAN, 0.1, PLANNED)
    store.reserve(kept.id, 1, 100)
    store.cancel(cancelled.id, "root")
    assert {job.id for job in store.recover()} == {kept.id, cancelled.id}
    again = store.get(kept.id)
    assert (again.state, again.reserved_bytes, store.failures(kept.id)) == (State.QUEUED, 0, 0)
    assert store.finished_stages(kept.id) == FINISHED
    assert store.get(cancelled.id).state is State.CANCELLED
    assert not store.succeed(kept.id, 1, "a ghost")


def test_counts_active_ids_and_oldest(store: Store) -> None:
    assert store.overview() == (Counts(), None)
    first, second = add(store, "a"), add(store, "b")
    store.hold(first.id, "root")
    store.reject_all([Refusal("c", (CRASH,), Origin())])
    counts, oldest = store.overview()
    assert (counts.queued, counts.held, counts.rejected, counts.running) == (1, 1, 1, 0)
    assert store.active_ids() == {first.id, second.id}
    assert oldest == second.created
    assert [job.id for job in store.list(JobFilter(states=(State.HELD,)))] == [first.id]


def test_the_pause_outlives_the_program(store: Store, address: str) -> None:
    assert not store.paused()
    store.set_paused(True)
    store.close()
    again = Store(address)
    assert again.paused()
    again.close()


def test_a_job_that_succeeds_shows_how_many_different_warnings_it_has(store: Store) -> None:
    other, job = add(store, "web02", priority=1), add(store, "web01")
    claimed = claim(store)
    for message in ("no drivers", "no drivers", "an old kernel"):
        assert store.record_warning(claimed.id, claimed.attempt, message)
    store.succeed(claimed.id, claimed.attempt, "done")
    assert (store.get(job.id).warnings, store.get(other.id).warnings) == (2, 0)
    assert {one.id: one.warnings for one in store.list()} == {job.id: 2, other.id: 0}


def test_the_past_rate_is_the_median_of_the_last_conversions(store: Store) -> None:
    assert store.past_rate() is None
    for seconds in (1000, *range(1, 11)):
        job = add(store, f"vm{seconds}")
        assert claim(store) == store.get(job.id)
        assert store.record_conversion(job.id, 1, 2520, 1.0)
        assert store.record_conversion(job.id, 1, 2520, float(seconds))
        assert store.succeed(job.id, 1, "")
    assert store.past_rate() == PastRate(bytes_per_second=(2520 / 5 + 2520 / 6) / 2, conversions=10)
    store.forget(now() + timedelta(seconds=1))
    assert store.past_rate() is None


def test_a_number_that_no_row_has_is_unknown_to_every_database(store: Store) -> None:
    number = 2**63  # SQLite takes what is above PostgreSQL's range, but not this
    for ask in (store.get, store.batch, lambda one: store.cancel(one, "root"), lambda one: store.hold(one, "root")):
        with pytest.raises(NotFound):
            ask(number)


def test_a_value_that_does_not_fit_is_no_damage(store: Store) -> None:
    """The database is asked for a value out of its range: its files are in order."""
    with pytest.raises(DataError), store.transaction():
        raise DataError("SELECT 1", None, ValueError("integer out of range"))


def test_submitters_are_known_by_their_jobs(store: Store) -> None:
    for uid in (1000, 1001):
        migration = Migration(vmdk=(Path("/a.vmdk"),), vm_name="a")
        store.submit(migration, content_key=str(uid), origin=Origin(submitter="alice", uid=uid))
    assert (store.uid_of("alice"), store.uid_of("root")) == (1001, None)


def test_the_steps_of_the_schema_are_one_line() -> None:
    """Each is applied after the one with the next lower number, in the order of their files."""
    texts = [path.read_text() for path in sorted((MIGRATIONS / "versions").glob("v*.py"))]
    numbers = [re.findall(r'^(?:down_)?revision = (?:"(\d+)"|None)$', text, re.MULTILINE) for text in texts]
    own, before = [number[0] for number in numbers], [number[1] for number in numbers]
    assert before == ["", *own[:-1]] and own == sorted(known_steps())
