"""A row that cannot be read back is shown as such or fails, and hides or stops no other one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.locks import Locks
from hyper2kvmd.daemon.storage import Storage
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.tables import jobs
from hyper2kvmd.model.jobs import JobFilter, State
from hyper2kvmd.model.notifications import Occasion
from tests.support.queue_verbs import add

NOW = datetime(2999, 1, 1, tzinfo=UTC)
NEWER_KEY = "UPDATE jobs SET migration = json_set(migration, '$.new_key', 1) WHERE id = 1"
BROKEN_JSON = "UPDATE jobs SET migration = replace(migration, ':', ';') WHERE id = 1"
NO_UTF8 = "UPDATE jobs SET migration = CAST(X'7BFF7D' AS TEXT) WHERE id = 1"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    for name in "ab":
        add(store, name)
    yield store
    store.close()


def damage(store: Store, *statements: str) -> None:
    connection = sqlite3.connect(str(store._engine.url.database))
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("damaged", [NEWER_KEY, BROKEN_JSON, NO_UTF8])
def test_a_queued_job_fails_by_name_and_the_next_one_starts(store: Store, damaged: str) -> None:
    damage(store, damaged)
    claimed = store.claim(NOW)
    assert claimed is not None and claimed.id == 2
    (failed,) = store.list(JobFilter(states=(State.FAILED,)))
    assert failed.id == 1 and [one.code for one in failed.problems] == ["job-unreadable"]
    assert "job 1" in failed.problems[0].message and "migration" in failed.problems[0].message
    assert store.events(1)[-1].kind == "failed"
    assert [one.job.id for one in store.endings([1])] == [1]
    assert store.claim(NOW) is None


def test_a_newer_version_can_retry_it(store: Store) -> None:
    damage(store, NEWER_KEY)
    store.claim(NOW)
    damage(store, "UPDATE jobs SET migration = json_remove(migration, '$.new_key') WHERE id = 1")
    store.retry(1, "root")
    claimed = store.claim(NOW)
    assert claimed is not None and claimed.id == 1 and claimed.problems == ()


@pytest.mark.parametrize("damaged", [NEWER_KEY, BROKEN_JSON, "UPDATE jobs SET migration = NULL WHERE id = 1"])
def test_a_retry_of_it_fails_by_name_again(store: Store, damaged: str) -> None:
    """NULL: found in the spool after the database was lost, and its YAML cannot be read any more."""
    damage(store, damaged)
    store.cancel(1, "root")
    store.retry(1, "root")
    assert (claimed := store.claim(NOW)) is not None and claimed.id == 2
    failed = store.get(1)
    assert failed.state is State.FAILED and [one.code for one in failed.problems] == ["job-unreadable"]


def test_running_when_the_daemon_died(store: Store) -> None:
    store.claim(NOW)
    damage(store, BROKEN_JSON)
    assert [job.id for job in store.recover()] == [1]
    claimed = store.claim(NOW)
    assert claimed is not None and claimed.id == 2 and store.get(1).state is State.FAILED


@pytest.mark.parametrize(
    "change",
    [
        "migration = ''",
        "migration = X'FF00'",
        "state = 'qu\x01ued'",
        "vm_name = X'00FF'",
        "priority = 'high'",
        "problems = '{'",
        "notes = 'nonsense'",
        "stage = 'levitate'",
        "progress = 7",
        "waiting_for = 'godot'",
        "sources = '['",
        "created = 'yesterday'",
        "not_before = X'41'",
        "submitter = X'C328'",
        "cancelling = 'perhaps'",
        "deaths = 'many'",
        "failures = 'few'",
        "attempt = 'first'",
        "delay_until = 'later', delay_seconds = 1.0",
        "delay_until = 1e300, delay_seconds = 1e300",
        "delay_until = 1.0, delay_seconds = NULL",
        "delay_until = 1.0, delay_seconds = X'00'",
        "delay_until = 1.0, delay_seconds = 1.0, delay_boot = X'FF'",
    ],
)
def test_whatever_column_is_damaged_everything_else_is_answered(store: Store, change: str) -> None:
    damage(store, f"UPDATE jobs SET {change} WHERE id = 1")  # noqa: S608
    assert sorted(job.id for job in store.list()) == [1, 2]
    assert store.get(1).id == 1
    store.overview(), store.waiting(), store.misplaced(), store.active_ids(), store.folder_owners([1, 2])
    store.recover()
    store.clock_jumped(NOW)
    store.claim(NOW, lambda _directories: True)
    store.claim(NOW)
    assert store.get(2).state is State.RUNNING
    store.failures(1)
    store.recover()
    store.forget(datetime(1980, 1, 1, tzinfo=UTC))
    assert {job.id for job in store.list()} == {1, 2}


@pytest.mark.parametrize("migration", ["{", "[]", None])
def test_a_damaged_job_fails_also_while_a_directory_has_a_fault(
    store: Store, tmp_path: Path, migration: str | None
) -> None:
    ours = DaemonConfig(state_dir=tmp_path / "state", conversion_dir=tmp_path / "conversions", spool_dir=tmp_path)
    theirs = ours.with_changes(state_dir=tmp_path / "other")
    with closing(Locks(ours)) as locks, closing(Locks(theirs)) as others:
        (tmp_path / "conversions").mkdir(mode=0o700)
        others.take("conversion_dir", tmp_path / "conversions")
        storage = Storage(ours, locks)
        asyncio.run(storage.look())
        (fault,) = storage.faults
        assert fault.role == "conversion" and fault.reason.startswith("another hyper2kvmd uses it (process ")
        with store.transaction(writes=True) as connection:
            connection.execute(update(jobs).where(jobs.c.id == 1).values(migration=migration))
        assert store.claim(NOW, usable=storage.usable()) is None
    assert store.get(1).state is State.FAILED and store.get(2).state is State.QUEUED


@pytest.mark.parametrize("product", ["{", '{"source": {"new": 1}}', ""])
def test_a_product_of_another_version_means_that_the_stage_is_not_finished(store: Store, product: str) -> None:
    damage(store, f"INSERT INTO stages VALUES (1, 'plan', 1, 1.0, '{product}')")  # noqa: S608
    damage(store, "INSERT INTO stages VALUES (1, 'levitate', 1, 1.0, '{}')")
    claimed = store.claim(NOW)
    assert claimed is not None and store.finished_stages(claimed.id).plan is None
    store.endings([1]), store.artifacts([1])


def test_a_notification_that_cannot_be_read_is_given_up(store: Store) -> None:
    occasions: tuple[Occasion, ...] = ("failure", "success")
    store.subscribe({"ops": occasions})
    for _ in "ab":
        job = store.claim(NOW)
        assert job is not None
        store.succeed(job.id, job.attempt, "")
    damage(store, "UPDATE notifications SET message = '{' WHERE job_id = 1")
    outgoing = store.next_notification("ops", NOW)
    assert outgoing is not None and outgoing.notification.job is not None and outgoing.notification.job.id == 2
