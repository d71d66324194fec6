"""A change that was put on record, though an error hid it, is repeated by the daemon: it must not count twice."""

from __future__ import annotations

import ast
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.pool import PoolProxiedConnection

import hyper2kvmd
from hyper2kvmd.errors import Failure
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.tables import conversions, events, jobs, notifications, stages, work
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.model.notifications import OCCASIONS
from tests.support.benches import plan_for
from tests.support.queue_verbs import CRASH, add, claim

DAEMON = Path(hyper2kvmd.__file__).parent / "daemon"
TABLES = jobs, stages, conversions, events, notifications, work
PLANNED = plan_for((), Layout(tables=()))
LATER = datetime.now(UTC) + timedelta(hours=1)
MAC = "52:54:00:00:00:01"
CHANGES: dict[str, Callable[[Store, int], object]] = {
    "start_stage": lambda store, job: store.start_stage(job, 1, Stage.PLAN),
    "finish_stage": lambda store, job: store.finish_stage(job, 1, Stage.PLAN, 0.1, PLANNED),
    "record_conversion": lambda store, job: store.record_conversion(job, 1, 1000, 2.0),
    "record_progress": lambda store, job: store.record_progress(job, 1, 0.5),
    "record_note": lambda store, job: store.record_note(job, 1, "a note"),
    "record_warning": lambda store, job: store.record_warning(job, 1, "a warning"),
    "record_stall": lambda store, job: store.record_stall(job, 1, "no byte"),
    "record_machine": lambda store, job: store.record_machine(job, 1, ["one line", "another line"]),
    "record_macs": lambda store, job: store.record_macs(job, 1, [MAC]),
    "reserve": lambda store, job: store.reserve(job, 1, 5000),
    "succeed": lambda store, job: store.succeed(job, 1, "/images/a.qcow2"),
    "fail": lambda store, job: store.fail(job, 1, (CRASH,), keep_stages=True),
    "hold_failed": lambda store, job: store.hold_failed(job, 1, (CRASH,), keep_stages=True, note="correct it"),
    "requeue": lambda store, job: store.requeue(job, 1, "again", keep_stages=True, problems=(CRASH,)),
    "finish_cancelled": lambda store, job: store.finish_cancelled(job, 1, keep_stages=True),
    "note_kept_folder": lambda store, job: store.note_kept_folder(job, "kept"),
    "forget_finished_stages": lambda store, job: store.forget_finished_stages(job),
    "recover": lambda store, _job: recovered(store),
    "subscribe": lambda store, _job: store.subscribe({"all": OCCASIONS}),
    "record_delivery": lambda store, _job: store.record_delivery(1),
    "postpone_delivery": lambda store, _job: store.postpone_delivery(1, "refused", LATER),
}
OF_ENDED_JOBS = {"note_kept_folder", "forget_finished_stages", "record_delivery", "postpone_delivery"}
QUESTIONS = {"artifacts", "clock_record", "failures", "finished_stages", "get", "list", "paused", "waiting_for_space"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    store.subscribe({"all": OCCASIONS})
    yield store
    store.close()


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_is_repeated_counts_once(store: Store, name: str) -> None:
    job = begun(store, name)
    answer = CHANGES[name](store, job)
    before = record(store)
    assert CHANGES[name](store, job) == answer
    assert record(store) == before


def test_all_changes_that_the_daemon_repeats_are_tried_here() -> None:
    """Each is an argument of `Ledger.ensure`."""
    assert set(ensured()) == CHANGES.keys() | QUESTIONS


def begun(store: Store, name: str) -> int:
    """A running job whose machine has the address of another one's, or one that has failed with a notification."""
    add(store, "other", 9)
    other = claim(store)
    store.record_macs(other.id, 1, [MAC])
    add(store, "a")
    job = claim(store)
    if name in OF_ENDED_JOBS:
        store.fail(job.id, 1, (CRASH,), keep_stages=True)
    return job.id


def recovered(store: Store) -> None:
    """The answer is what this call has changed."""
    store.recover()


def record(store: Store) -> list[list[dict[str, object]]]:
    """All rows, without times."""
    with store.transaction() as connection:
        found = [connection.execute(select(table)).mappings().all() for table in TABLES]
    return [
        [{name: value for name, value in row.items() if not isinstance(value, datetime)} for row in rows]
        for rows in found
    ]


def ensured() -> Iterator[str]:
    for path in DAEMON.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "ensure":
                verb = node.args[0]
                assert isinstance(verb, ast.Attribute), f"{path.name}:{node.lineno}: name the verb of the store"
                yield verb.attr


def test_an_end_that_an_error_hid_is_seen_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its repetition changes nothing, and says so: that is no reason to use earlier answers."""
    add(store, "a")
    job = claim(store)
    assert store.overview()[0].running == 1
    dialect = store._engine.dialect
    commit = dialect.do_commit

    def hide(connection: PoolProxiedConnection) -> None:
        commit(connection)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(dialect, "do_commit", hide)
    with pytest.raises(Failure):
        store.fail(job.id, 1, (CRASH,), keep_stages=True)
    monkeypatch.setattr(dialect, "do_commit", commit)
    assert store.fail(job.id, 1, (CRASH,), keep_stages=True)
    assert store.overview()[0].failed == 1
