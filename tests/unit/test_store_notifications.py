"""The outbox of notifications, on real databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from hyper2kvmd.jobs import notices, outbox
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin, Submission
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Job, Problem, State
from hyper2kvmd.model.notifications import OCCASIONS, Notification

CRASH = Problem(code="told-to", message="the disk\nis gone", hint="Bring it back", kind="permanent")
ALICE = Origin(submitter="alice", uid=1000)
SOON = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def store(address: str) -> Iterator[Store]:
    store = Store(address)
    store.subscribe({"all": OCCASIONS})
    yield store
    store.close()


def add(store: Store, name: str, *, batch: str | None = None, after: tuple[str, ...] = ()) -> int:
    asked = Migration(vmdk=(Path(f"/{name}.vmdk"),), vm_name=name, batch=batch, after=after)
    return store.submit_file([Submission(asked, name, ALICE, batch=batch)])[0].job.id


def claim(store: Store) -> Job:
    job = store.claim(datetime.now(UTC))
    assert job is not None
    return job


def sent(store: Store, destination: str = "all") -> list[Notification]:
    """What was posted since the last time."""
    found = []
    while one := store.next_notification(destination, SOON):
        store.record_delivery(one.number)
        found.append(one.notification)
    return found


def events(store: Store, destination: str = "all") -> list[str]:
    return [one.event for one in sent(store, destination)]


def test_each_end_of_a_job_is_announced_with_its_facts(store: Store) -> None:
    add(store, "web")
    assert events(store) == []
    job = claim(store)
    store.fail(job.id, job.attempt, (CRASH,), keep_stages=False)
    (failed,) = sent(store)
    assert failed.event == "failure" and failed.job is not None
    assert (failed.job.vm_name, failed.job.state, failed.job.problems) == ("web", State.FAILED, (CRASH,))
    assert failed.summary == "web (job 1) failed: the disk is gone. Bring it back. [told-to]"
    store.retry(job.id, "root")
    job = claim(store)
    store.succeed(job.id, job.attempt, "/images/web.qcow2")
    assert [one.summary for one in sent(store)] == ["web (job 1) succeeded: /images/web.qcow2"]


def test_success_with_warnings_is_one_notification_for_each_destination(store: Store) -> None:
    store.subscribe({"all": OCCASIONS, "warnings": ("warning",), "fine": ("success",), "others": ("failure",)})
    add(store, "web")
    job = claim(store)
    store.record_warning(job.id, job.attempt, "odd")
    store.succeed(job.id, job.attempt, "")
    assert {name: events(store, name) for name in ("all", "warnings", "fine", "others")} == {
        "all": ["warning"],
        "warnings": ["warning"],
        "fine": ["warning"],
        "others": [],
    }
    add(store, "db")
    job = claim(store)
    store.succeed(job.id, job.attempt, "")
    assert (events(store, "warnings"), events(store, "fine")) == ([], ["success"])


def test_held_by_a_person_or_by_a_failed_dependency(store: Store) -> None:
    add(store, "db")
    add(store, "web", after=("db",))
    job = claim(store)
    store.fail(job.id, job.attempt, (CRASH,), keep_stages=False)
    assert [(one.event, one.job.vm_name if one.job else "") for one in sent(store)] == [
        ("failure", "db"),
        ("held", "web"),
    ]
    store.release(2, "root")
    store.hold(2, "root")
    assert events(store) == ["held"]


def test_waiting_for_space_is_announced_once_an_hour_for_each_job(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("web", "db"):
        add(store, name)
    for _ in range(2):
        for _ in range(2):
            job = claim(store)
            store.requeue(job.id, job.attempt, "waiting for space", keep_stages=True, delay_seconds=60)
        store.wake([1, 2])
    assert events(store) == ["space", "space"]
    monkeypatch.setattr(outbox, "SPACE_PAUSE", timedelta(0))
    job = claim(store)
    store.requeue(job.id, job.attempt, "waiting for space", keep_stages=True, delay_seconds=60)
    assert events(store) == ["space"]


def test_a_retry_or_an_interruption_is_no_space_that_is_missing(store: Store) -> None:
    add(store, "web")
    job = claim(store)
    store.requeue(job.id, job.attempt, "will be retried", keep_stages=True, delay_seconds=60, problems=(CRASH,))
    store.wake([1])
    job = claim(store)
    store.requeue(job.id, job.attempt, "interrupted", keep_stages=True)
    assert events(store) == []


def test_a_stall_is_a_warning_and_a_notification_of_the_running_attempt_only(store: Store) -> None:
    add(store, "web")
    job = claim(store)
    assert store.record_stall(job.id, job.attempt, "nothing moves")
    assert not store.record_stall(job.id, job.attempt - 1, "nothing moves")
    assert (events(store), store.get(1).warnings) == (["stall"], 1)


def test_a_batch_is_done_with_its_last_job_however_that_ends(store: Store) -> None:
    for name in ("a", "b", "c"):
        add(store, name, batch="wave 1")
    add(store, "alone")
    store.cancel(3, "root")
    job = claim(store)
    store.succeed(job.id, job.attempt, "")
    assert "batch" not in events(store)
    job = claim(store)
    store.fail(job.id, job.attempt, (CRASH,), keep_stages=False)
    failed, done = sent(store)
    assert (failed.event, done.event) == ("failure", "batch") and done.batch is not None
    assert done.summary == "batch wave 1 is done: 1 succeeded, 1 failed, 1 cancelled"
    store.retry(2, "root")
    store.cancel(2, "root")
    assert events(store) == ["batch"]


def test_cancelled_jobs_of_a_dead_daemon_end_their_batch(store: Store) -> None:
    add(store, "a", batch="wave")
    claim(store)
    store.cancel(1, "root")
    assert events(store) == []
    store.recover()
    assert events(store) == ["batch"]


def test_what_fails_is_tried_later_and_the_oldest_error_is_not_shown(store: Store) -> None:
    for name in ("a", "b"):
        add(store, name)
        store.hold(claim_free(store), "root")
    now = datetime.now(UTC)
    first = store.next_notification("all", now)
    assert first is not None and first.tries == 0
    store.postpone_delivery(first.number, "x" * 10_000, now + timedelta(hours=1))
    second = store.next_notification("all", now)
    assert second is not None and second.number != first.number
    store.postpone_delivery(second.number, "refused", now + timedelta(hours=1))
    assert store.next_notification("all", now) is None and store.due_destinations(now) == frozenset()
    assert store.due_destinations(SOON) == {"all"}
    (state,) = store.delivery_states()
    assert (state.pending, state.last_error, state.oldest) == (2, "refused", first.created)
    again = store.next_notification("all", SOON)
    assert again is not None and (again.number, again.tries) == (first.number, 1)


def claim_free(store: Store) -> int:
    """The newest job."""
    return store.list()[0].id


def test_what_was_tried_often_excess_and_unwanted_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "MAX_PENDING", 3)
    store.subscribe({"all": ("held",), "gone": ("held",)})
    for name in "abcde":
        add(store, name)
        store.hold(claim_free(store), "root")
    assert store.give_up_deliveries(2, ("all",)) == {"all": 2, "gone": 5}
    assert store.give_up_deliveries(2, ("all",)) == {}
    assert [one.job.id for one in sent(store) if one.job] == [3, 4, 5]
    add(store, "f")
    store.hold(claim_free(store), "root")
    for number in (store.next_notification(name, SOON) for name in ("all", "gone")):
        assert number is not None
        assert store.give_up_deliveries(2, ("all", "gone")) == {}
        for _ in range(2):
            store.postpone_delivery(number.number, "no answer", datetime.now(UTC))
        assert store.give_up_deliveries(2, ("all", "gone")) == {number.destination: 1}
    assert events(store) == []


def test_finished_notifications_do_not_accumulate(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "KEPT", 2)
    for name in "abcd":
        add(store, name)
        store.hold(claim_free(store), "root")
    sent(store)
    with store.transaction() as connection:
        assert connection.exec_driver_sql("SELECT id FROM notifications").scalars().all() == [3, 4]


def test_without_subscriptions_nothing_is_recorded(store: Store) -> None:
    store.subscribe({})
    add(store, "a")
    store.hold(1, "root")
    assert store.due_destinations(SOON) == frozenset() and store.delivery_states() == ()


@pytest.mark.parametrize("address", ["sqlite"], indirect=True)
def test_a_change_that_fails_leaves_no_notification(store: Store) -> None:
    add(store, "a")
    job = claim(store)
    with store.transaction(writes=True) as connection:
        refusal = "BEFORE INSERT ON work BEGIN SELECT RAISE(ABORT, 'no work is recorded'); END"
        connection.exec_driver_sql(f"CREATE TRIGGER refused {refusal}")
    with pytest.raises(IntegrityError, match="no work is recorded"):
        store.succeed(job.id, job.attempt, "")
    assert (events(store), store.get(1).state) == ([], State.RUNNING)
