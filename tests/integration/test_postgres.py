"""The store on a real PostgreSQL server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hyper2kvmd.errors import BrokenInstallation, TryLater
from hyper2kvmd.jobs.database_lock import DatabaseLock
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin, Submission
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import JobFilter, Sort, Stage, State
from hyper2kvmd.model.results import Finished
from tests.support.benches import NOTHING_PLANNED
from tests.support.postgres import TEMPLATE, Postgres, server
from tests.support.queue_verbs import CRASH, add, claim, kinds

NOW = datetime(2999, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="h2k-pg-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with server(Path(folder) / "server") as running:
            running.sql(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
            Store(running.address(TEMPLATE)).close()
            yield running


@pytest.fixture
def store(postgres: Postgres) -> Iterator[Store]:
    store = Store(postgres.address(postgres.new_database(TEMPLATE)))
    yield store
    store.close()


def test_a_job_from_its_submission_to_its_end(store: Store) -> None:
    add(store, "a")
    job = claim(store)
    assert store.start_stage(job.id, 1, Stage.PLAN) and store.finish_stage(job.id, 1, Stage.PLAN, 0.1, NOTHING_PLANNED)
    assert store.finished_stages(job.id) == Finished(plan=NOTHING_PLANNED)
    assert store.record_progress(job.id, 1, 0.5) and store.reserve(job.id, 1, 1 << 40)
    assert store.succeed(job.id, 1, "/images/a.qcow2")
    assert store.get(job.id).state is State.SUCCEEDED and kinds(store, job.id)[-1] == "succeeded"
    assert store.overview()[0].succeeded == 1 and store.work_since(datetime.now(UTC) - timedelta(hours=2))
    assert not store.succeed(job.id, 1, "twice")


def test_failures_retries_and_cancelling(store: Store) -> None:
    add(store, "a")
    job = claim(store)
    assert store.fail(job.id, 1, (CRASH,), keep_stages=False)
    store.retry(job.id, "root")
    assert claim(store).attempt == 2
    assert [one.id for one in store.recover()] == [job.id]
    store.hold(job.id, "root")
    store.release(job.id, "root")
    assert store.cancel(job.id, "root").state is State.CANCELLED
    assert store.forget(NOW) == 1 and store.list() == []


def test_batches_dependencies_and_lists(store: Store) -> None:
    origin = Origin(submitter="alice", uid=1000, operator=True)
    first = Migration(vm_name="a", vmdk=(Path("/a.vmdk"),), batch="wave")
    second = Migration(vm_name="b", vmdk=(Path("/b.vmdk"),), batch="wave", after=("a",))
    asked = [Submission(one, one.vm_name, origin, batch="wave") for one in (first, second)]
    store.submit_file(asked)
    assert [one.new for one in store.submit_file(asked)] == [False, False]
    running = claim(store)
    assert running.vm_name == "a" and store.claim(NOW) is None
    store.succeed(running.id, running.attempt, "")
    assert claim(store).vm_name == "b"
    for sort in Sort:
        for states in ((), (State.SUCCEEDED, State.RUNNING)):
            assert len(store.list(JobFilter(states=states), sort=sort)) == 2
    (batch,) = store.batches()
    assert (batch.name, batch.counts.succeeded, batch.counts.running) == ("wave", 1, 1)
    assert store.misplaced() == () or store.misplaced() == []
    store.retried(), store.waiting(), store.active_ids(), store.delivery_states(), store.past_rate()


def test_a_refused_login_is_an_error_of_the_operator(postgres: Postgres) -> None:
    postgres.sql("CREATE ROLE stranger LOGIN PASSWORD 'right'")
    for address in (postgres.address(TEMPLATE, "stranger", "wrong"), postgres.address("no_such_database")):
        with pytest.raises(BrokenInstallation) as refusal:
            Store(address)
        assert refusal.value.code == "database-login" and "wrong" not in refusal.value.message
        assert "pg_hba.conf" in refusal.value.hint


def test_a_restart_of_the_server_is_waited_out_and_the_lock_is_taken_again(postgres: Postgres) -> None:
    name = postgres.new_database(TEMPLATE)
    store, lock = Store(postgres.address(name)), DatabaseLock(postgres.address(name), "this test")
    lock.take()
    postgres.stop()
    with pytest.raises(TryLater) as refusal:
        store.get(1)
    assert refusal.value.code == "database-unavailable"
    with pytest.raises(TryLater):
        lock.take()
    postgres.start()
    lock.take()
    with pytest.raises(BrokenInstallation, match="this test"):
        DatabaseLock(postgres.address(name), "another").take()
    add(store, "a")
    lock.close()
    store.close()
