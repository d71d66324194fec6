"""How SQLite answers the regular queries of the daemon, the pages and the commands: by an index, whatever is on record.

A query without an index reads every job, of which there can be 100,000, and the daemon asks some of them each second.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from hyper2kvmd.jobs.moves import MoveKind
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import JobFilter, Sort, State

NOW = datetime(2026, 11, 30, tzinfo=UTC)
READS_ALL = re.compile(r"SCAN (jobs|events|dependencies)(_[0-9]+)?(?! USING COVERING INDEX)")
IN_ORDER = ("jobs_by_name", "jobs_by_finish", "jobs_misplaced", "jobs_retried", "jobs_with_warnings")
"""Indexes that are read in order up to a limit, or that have few of the jobs."""
ENDED = tuple(state for state in State if not state.active)
WAITING = (State.QUEUED, State.HELD)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    store.submit(Migration(vm_name="a", vmdk=(Path("/a"),)), content_key="a", origin=Origin(submitter="root", uid=0))
    yield store
    store.close()


def plans(store: Store, path: Path, ask: Callable[[Store], object]) -> list[str]:
    """The steps by which SQLite answers this."""
    asked: list[tuple[str, tuple[Any, ...]]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: tuple[Any, ...], *_: object) -> None:
        asked.append((statement, parameters))

    event.listen(store._engine, "before_cursor_execute", note)
    try:
        ask(store)
    finally:
        event.remove(store._engine, "before_cursor_execute", note)
    connection = sqlite3.connect(path / "jobs.sqlite3")
    queries = [one for one in asked if one[0].startswith(("SELECT", "UPDATE", "DELETE", "WITH"))]
    assert queries
    steps = [row[3] for text, values in queries for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]
    connection.close()
    return steps


def scans(store: Store, path: Path, ask: Callable[[Store], object]) -> list[str]:
    """The steps that read a whole table of jobs or events while this is asked."""
    return [step for step in plans(store, path, ask) if READS_ALL.match(step) and not step.endswith(IN_ORDER)]


REGULAR: dict[str, Callable[[Store], object]] = {
    "claim": lambda store: store.claim(NOW),
    "claim of nothing": lambda store: (store.cancel(1, "root"), store.claim(NOW)),
    "open moves": lambda store: store.open_moves(MoveKind.PUT_AWAY),
    "retried": lambda store: store.retried(),
    "due": lambda store: store.due_destinations(NOW),
    "deliveries": lambda store: store.delivery_states(),
    "given up": lambda store: store.give_up_deliveries(5, ()),
    "busy sources": lambda store: store.forget_busy_sources(),
    "clock": lambda store: store.clock_jumped(NOW),
    "recover": lambda store: store.recover(),
    "overview": lambda store: store.overview(),
    "paused": lambda store: store.paused(),
    "waiting": lambda store: store.waiting(),
    "active ids": lambda store: store.active_ids(),
    "known claims": lambda store: store.known_claims(["a", "b"]),
    "misplaced": lambda store: store.misplaced(),
    "groups": lambda store: store.spool_groups(["a"]),
    "surplus": lambda store: store.surplus("root", State.SUCCEEDED, 10),
    "get": lambda store: store.get(1),
    "events": lambda store: store.events(1),
    "past rate": lambda store: store.past_rate(),
    "work": lambda store: store.work_since(NOW - timedelta(days=1)),
    "count": lambda store: store.count(),
    "count by state": lambda store: store.count(JobFilter(states=ENDED)),
    "count by uid": lambda store: store.count(JobFilter(submitter_uid=0)),
    "count by uid and state": lambda store: store.count(JobFilter(submitter_uid=0, states=ENDED)),
    "count by name": lambda store: store.count(JobFilter(vm_name="a")),
    "count of the warned": lambda store: store.count(JobFilter(warned=True)),
    "count since": lambda store: store.count(JobFilter(since=NOW)),
    "batches": lambda store: store.batches(),
    "a batch": lambda store: store.list(JobFilter(batch_id=1)),
    "waiting jobs": lambda store: store.list(JobFilter(states=WAITING), 50, 0, Sort.START),
    "recent jobs": lambda store: store.list(JobFilter(states=ENDED), 20, 0, Sort.FINISHED),
    "newest of states": lambda store: store.list(JobFilter(states=ENDED), 100),
    "by name": lambda store: store.list(limit=100, sort=Sort.NAME),
    "by end": lambda store: store.list(limit=100, sort=Sort.FINISHED),
    "mine": lambda store: store.list(JobFilter(submitter_uid=0), 100),
    "of a VM": lambda store: store.list(JobFilter(vm_name="a"), 100),
    "some": lambda store: store.list(JobFilter(ids=(1, 2))),
    "warned": lambda store: store.list(JobFilter(warned=True), 100),
    "succeed": lambda store: store.succeed(store.claim(NOW).id, 1, ""),  # type: ignore[union-attr]
    "cancel": lambda store: store.cancel(1, "root"),
}


@pytest.mark.parametrize("name", REGULAR)
def test_a_regular_query_reads_no_whole_table(store: Store, tmp_path: Path, name: str) -> None:
    assert scans(store, tmp_path, REGULAR[name]) == []


def test_the_newest_jobs_are_read_in_the_order_of_the_table(store: Store, tmp_path: Path) -> None:
    """Which ends at the limit."""
    assert scans(store, tmp_path, lambda store: store.list(limit=100)) == ["SCAN jobs"]


MINE = JobFilter(submitter_uid=0, states=ENDED)


@pytest.mark.parametrize(
    "asked",
    [
        MINE,
        MINE.with_changes(since=NOW),
        MINE.with_changes(warned=True),
        JobFilter(states=ENDED),
        JobFilter(states=ENDED, since=NOW),
        JobFilter(states=ENDED, warned=True),
    ],
)
def test_a_count_reads_an_index_and_no_job(store: Store, tmp_path: Path, asked: JobFilter) -> None:
    steps = plans(store, tmp_path, lambda store: store.count(asked))
    assert steps and all("USING COVERING INDEX" in step for step in steps)


def test_the_jobs_that_a_submitter_keeps_are_skipped_in_an_index(store: Store, tmp_path: Path) -> None:
    steps = plans(store, tmp_path, lambda store: store.surplus("root", State.SUCCEEDED, 10_000))
    assert "SEARCH jobs USING COVERING INDEX jobs_of_submitter (submitter=? AND state=?)" in steps


def test_spool_files_in_the_wrong_place_are_in_an_index_of_their_own(store: Store, tmp_path: Path) -> None:
    assert plans(store, tmp_path, lambda store: store.misplaced()) == ["SCAN jobs USING INDEX jobs_misplaced"]


@pytest.mark.parametrize("after", [None, NOW])
def test_jobs_that_ended_in_publish_are_in_an_index_of_their_own(
    store: Store, tmp_path: Path, after: datetime | None
) -> None:
    """Thousands of others have failed as well."""
    since = "" if after is None else " AND finished>?"
    steps = plans(store, tmp_path, lambda store: store.killed_in_publish(after))
    assert steps == [f"SEARCH jobs USING INDEX jobs_ended_in_publish (stage=?{since})"]


def test_jobs_of_a_machine_in_some_states_are_found_by_its_name(store: Store, tmp_path: Path) -> None:
    steps = plans(store, tmp_path, lambda store: store.list(JobFilter(vm_name="a", states=ENDED), 100))
    assert "SEARCH jobs USING INDEX jobs_by_name (vm_name=?)" in steps
