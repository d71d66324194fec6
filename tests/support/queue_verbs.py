"""The verbs of the queue as tests use them, on jobs that only have a name."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Job, Problem

CRASH = Problem(code="worker-crashed", message="the worker died", hint="look at the journal", kind="retry")


def now() -> datetime:
    return datetime.now(UTC)


def content_key(*content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()


def add(store: Store, name: str, priority: int = 5) -> Job:
    migration = Migration(vmdk=(Path(f"/images/{name}.vmdk"),), vm_name=name, priority=priority)
    return store.submit(migration, content_key=name, origin=Origin(submitter="root")).job


def claim(store: Store) -> Job:
    job = store.claim(now())
    assert job is not None
    return job


def kinds(store: Store, job_id: int) -> list[str]:
    return [event.kind for event in store.events(job_id)]
