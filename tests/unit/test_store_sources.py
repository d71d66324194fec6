"""Jobs that are passed over because their source is busy, on a real SQLite file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import event

from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Job, WaitingFor


def add(store: Store, name: str, *paths: str, priority: int = 5) -> int:
    migration = Migration(vmdk=tuple(map(Path, paths)), vm_name=name, priority=priority)
    return store.submit(migration, content_key=name, origin=Origin()).job.id


def claim(store: Store, *busy: str) -> Job | None:
    return store.claim(datetime.now(UTC), lambda sources: not set(sources) & set(busy))


def reasons(store: Store) -> dict[str, WaitingFor | None]:
    return {job.vm_name: job.waiting_for for job in store.list()}


def test_jobs_of_a_busy_source_are_passed_over_in_order(store: Store) -> None:
    for name, path, priority in (("a", "/slow/1", 9), ("b", "/fast/1", 5), ("c", "/fast/2", 7), ("d", "/slow/2", 1)):
        add(store, name, path, priority=priority)
    names = [job.vm_name for job in (claim(store, "/slow"), claim(store, "/slow")) if job]
    assert names == ["c", "b"]
    assert claim(store, "/slow") is None
    assert (reasons(store)["a"], reasons(store)["d"]) == (WaitingFor.SOURCE, WaitingFor.SOURCE)
    first = claim(store)
    assert first is not None and (first.vm_name, first.waiting_for) == ("a", None)


def test_a_job_with_several_sources_needs_all_of_them(store: Store) -> None:
    add(store, "a", "/fast/1", "/slow/1")
    assert claim(store, "/slow") is None and claim(store, "/fast") is None and claim(store) is not None


def test_only_the_first_search_records_that_a_job_was_passed_over(store: Store) -> None:
    add(store, "a", "/slow/1")
    claim(store, "/slow")
    written = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        written.append(statement.split()[0])

    event.listen(store._engine, "before_cursor_execute", note)
    claim(store, "/slow")
    assert set(written) <= {"BEGIN", "SELECT"}


def test_no_job_waits_for_its_source_once_the_limits_are_others(store: Store) -> None:
    job = add(store, "a", "/slow/1")
    claim(store, "/slow")
    store.forget_busy_sources()
    assert store.get(job).waiting_for is WaitingFor.SLOT
