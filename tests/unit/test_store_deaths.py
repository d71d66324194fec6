"""Jobs that ran when the daemon died: the one that killed it fails by name, and those beside it do not."""

from __future__ import annotations

from hyper2kvmd.jobs.deaths import MAX_DEATHS, SUSPECTED_AFTER
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.jobs import Stage, State
from tests.support.benches import plan_for
from tests.support.queue_verbs import add, claim, now

PLANNED = plan_for((), Layout(tables=()))


def start_all(store: Store, slots: int = 3) -> list[str]:
    """Names of the jobs that one daemon starts."""
    found = (store.claim(now()) for _ in range(slots))
    return [job.vm_name for job in found if job is not None]


def test_a_deadly_job_fails_by_name_and_its_neighbours_succeed(store: Store) -> None:
    for name in ("innocent", "deadly", "other"):
        add(store, name)
    together = 0
    for _ in range(20):
        running = start_all(store)
        if not running:
            break
        together += len(running) > 1
        if "deadly" in running:
            store.recover()
        else:
            for job in store.list():
                if job.state is State.RUNNING:
                    store.succeed(job.id, job.attempt, "")
    assert {job.vm_name: job.state for job in store.list()} == {
        "innocent": State.SUCCEEDED,
        "deadly": State.FAILED,
        "other": State.SUCCEEDED,
    }
    assert together == SUSPECTED_AFTER
    failed = next(job for job in store.list() if job.state is State.FAILED)
    assert failed.problems[0].code == "job-deadly" and failed.attempt == MAX_DEATHS
    assert f"deadly: the daemon died {MAX_DEATHS} times" in failed.problems[0].message
    store.retry(failed.id, "root")
    assert start_all(store) == ["deadly"]
    store.recover()
    assert store.get(failed.id).state is State.QUEUED, "a retry begins anew"


def test_a_suspect_starts_when_the_others_have_ended_and_nothing_starts_beside_it(store: Store) -> None:
    add(store, "suspect")
    for _ in range(SUSPECTED_AFTER):
        claim(store)
        store.recover()
    first = add(store, "first", priority=9)
    assert start_all(store) == ["first"], "nothing runs beside it, although there are slots"
    add(store, "late")
    assert start_all(store) == [], "the suspect has its turn before it"
    store.succeed(first.id, 1, "")
    assert start_all(store) == ["suspect"]
    assert start_all(store) == []


def test_a_job_that_gets_further_is_no_suspect(store: Store) -> None:
    """Many restarts of the host during a long migration are no reason to end it."""
    job = add(store, "long")
    for stage in (Stage.PLAN, Stage.CONVERT, Stage.REPAIR, Stage.VERIFY, Stage.PUBLISH):
        running = claim(store)
        store.finish_stage(job.id, running.attempt, stage, 1.0, PLANNED)
        store.recover()
    assert store.get(job.id).state is State.QUEUED
    for _ in range(MAX_DEATHS - 1):  # one more than the last one: a repeated stage is no progress
        running = claim(store)
        store.finish_stage(job.id, running.attempt, Stage.PLAN, 1.0, PLANNED)
        store.recover()
    assert store.get(job.id).state is State.FAILED


def test_an_orderly_end_of_the_daemon_is_no_death(store: Store) -> None:
    job = add(store, "a")
    for _ in range(2 * MAX_DEATHS):
        running = claim(store)
        assert store.requeue(job.id, running.attempt, "interrupted", keep_stages=True)
        store.recover()
    assert store.get(job.id).state is State.QUEUED
