"""Spool files of jobs on a real SQLite file: several machines of one file, and where a file belongs."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from hyper2kvmd.jobs.intake import RejectedFile
from hyper2kvmd.jobs.moves import Intent, MoveKind
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin, Refusal, Submission
from hyper2kvmd.jobs.tables import MISPLACED
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import State
from tests.support.queue_verbs import CRASH, add, claim, kinds, now


def test_a_spool_file_is_on_record_once(store: Store) -> None:
    migration, origin = Migration(vmdk=(Path("/a.vmdk"),), vm_name="a"), Origin(claim="1-a.yaml")
    job = store.submit(migration, content_key="k", origin=origin).job
    with pytest.raises(IntegrityError):
        store.submit(migration, content_key="l", origin=origin)
    assert store.get(job.id) == job and store.claim(now()) is not None and store.claim(now()) is None


def machines(content: str, names: str, claim: str = "") -> list[Submission]:
    """One for each letter; the first one has the file."""
    claim = claim or content
    first = Origin(submitter="root", claim=claim, path=f"active/{claim}", spool_group=claim)
    return [
        Submission(
            Migration(vmdk=(Path(f"/{name}.vmdk"),), vm_name=name),
            f"{content}{name}",
            Origin(submitter="root", spool_group=claim) if number else first,
        )
        for number, name in enumerate(names)
    ]


def test_a_batch_is_queued_as_a_whole_or_not_at_all(store: Store) -> None:
    first, second = store.submit_all([machines("x", "ab"), machines("y", "c")])
    assert isinstance(first, list) and isinstance(second, list)
    assert [(one.job.vm_name, one.new) for one in (*first, *second)] == [("a", True), ("b", True), ("c", True)]
    assert {name: [job.vm_name for job in found] for name, found in store.spool_groups(["x", "z"]).items()} == {
        "x": ["a", "b"]
    }
    again = store.submit_file(machines("x", "ab", "x2"))
    assert [(one.job.id, one.new) for one in again] == [(1, False), (2, False)]
    job = claim(store)
    store.succeed(job.id, job.attempt, "done")
    partly = store.submit_file(machines("x", "ab", "x3"))
    assert [(one.job.vm_name, one.new) for one in partly] == [("b", False)]
    assert len(store.list()) == 3
    assert kinds(store, 2)[-1] == "duplicate"


def test_a_batch_that_is_cut_off_leaves_nothing(store: Store) -> None:
    one, two, three = machines("x", "abc")
    unwritable = replace(two, origin=replace(two.origin, name="\udcff"))
    with pytest.raises(UnicodeEncodeError):
        store.submit_all([machines("w", "z"), [one, three, unwritable]])
    assert store.list() == [] and store.known_claims(["x"]) == frozenset()


def test_a_file_that_cannot_be_put_on_record_affects_no_other(store: Store) -> None:
    (one,), (two,) = machines("x", "a"), machines("y", "b")
    unwritable = replace(two, origin=replace(two.origin, name="\udcff"))
    refusal = Refusal("r", (CRASH,), Origin(submitter="root", claim="r"))
    (move,) = store.plan_moves([Intent(MoveKind.CLAIM, "incoming/\udcff", "active/x")])
    assert store.open_moves(MoveKind.CLAIM) == [move]
    entered, error, rejected = store.enter([[one], [unwritable], refusal], lambda _asked, _result: None, [move.number])
    assert isinstance(entered, list) and isinstance(error, ValueError) and isinstance(rejected, RejectedFile)
    assert [job.vm_name for job in store.list()] == ["r", "a"]
    assert store.open_moves(MoveKind.CLAIM) == []
    (alone,) = store.plan_moves([Intent(MoveKind.CLAIM, "incoming/y", "active/y")])
    (error,) = store.enter([[unwritable]], lambda _asked, _result: None, [alone.number])
    assert isinstance(error, ValueError) and store.open_moves(MoveKind.CLAIM) == []


def test_the_files_of_forgotten_jobs_are_on_record_until_they_are_removed(store: Store) -> None:
    job = store.submit(machines("x", "a")[0].migration, content_key="k", origin=Origin(path="active/x")).job
    store.cancel(job.id, "root")
    (move,) = store.forget_jobs([job.id])
    assert store.list() == [] and store.open_moves(MoveKind.REMOVE) == [move] and move.source == "active/x"
    store.finish_moves([move.number])
    assert store.open_moves(MoveKind.REMOVE) == []


def test_a_batch_is_forgotten_when_it_is_over(store: Store) -> None:
    store.submit_all([machines("x", "ab")])
    first = claim(store)
    store.succeed(first.id, first.attempt, "done")
    later = now() + timedelta(days=1)
    assert store.forget(later) == 0 and store.surplus("root", State.SUCCEEDED, 0) == []
    second = claim(store)
    store.succeed(second.id, second.attempt, "done")
    assert [job_id for job_id, _ in store.surplus("root", State.SUCCEEDED, 0)] == [2], "the file of 1 is not in done/"
    store.move_spool_files({1: "done/x"})
    assert [job_id for job_id, _ in store.surplus("root", State.SUCCEEDED, 0)] == [2, 1]
    assert store.forget(later) == 2


def test_many_at_once_are_what_each_would_have_been(store: Store) -> None:
    def submission(name: str, key: str) -> Submission:
        return Submission(Migration(vmdk=(Path("/a.vmdk"),), vm_name=name), key, Origin(claim=name))

    entered = store.submit_all([[submission(*each)] for each in ("a1", "b2", "c1")])
    results = [one for file in entered if isinstance(file, list) for one in file]
    assert [(one.job.vm_name, one.new) for one in results] == [("a", True), ("b", True), ("a", False)]
    assert store.known_claims(["a", "b", "c"]) == {"a", "b"}
    assert store.submit_all([]) == []
    assert store.reject_all([]) == []


def test_spool_files_in_the_wrong_place_are_found(store: Store) -> None:
    origins = [Origin(submitter="root", claim=str(number), path=f"active/{number}") for number in range(3)]
    for origin in origins:
        store.submit(Migration(vmdk=(Path("/a"),), vm_name="a"), content_key=str(origin.claim), origin=origin)
    assert store.misplaced() == []
    store.cancel(2, "root")
    assert [(one.job.id, one.path) for one in store.misplaced()] == [(2, "active/1")]
    store.move_spool_files({2: "failed/a.yaml"})
    assert store.misplaced() == []


def test_the_search_for_spool_files_in_the_wrong_place_uses_an_index(tmp_path: Path) -> None:
    Store(f"sqlite:///{tmp_path}/jobs.sqlite3").close()
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as connection:
        query = f"SELECT * FROM jobs WHERE {MISPLACED} ORDER BY id"  # noqa: S608 - no word of it is a stranger's
        plan = connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
    assert "jobs_misplaced" in str(plan)


def test_the_oldest_jobs_of_a_submitter_are_forgotten_but_none_that_is_active(store: Store) -> None:
    store.reject_all([Refusal("c", (CRASH,), Origin(submitter="alice", path=f"rejected/{n}")) for n in range(4)])
    store.reject_all([Refusal("c", (CRASH,), Origin(submitter="bob")) for _ in range(4)])
    assert store.surplus("alice", State.REJECTED, 2) == [(2, "rejected/1"), (1, "rejected/0")]
    active = add(store, "a")
    store.forget_jobs([1, 2, active.id])
    assert sorted(job.id for job in store.list()) == [3, 4, 5, 6, 7, 8, active.id]
