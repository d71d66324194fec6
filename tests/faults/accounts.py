"""What must hold for a spool and its database, judged without the daemon's code.

Reads the folders and the tables only. Every function returns complaints; an empty list is the good case.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDERS = ("incoming", "active", "done", "failed", "rejected")
PLACE = {"succeeded": "done", "failed": "failed", "cancelled": "failed", "rejected": "rejected"}
OUTCOMES = (".reason.json", ".result.json", ".result.md")
STEPS = {
    ("", "submitted"): "waiting",
    ("", "rejected"): "over",
    ("waiting", "claimed"): "running",
    ("waiting", "held"): "waiting",
    ("waiting", "released"): "waiting",
    ("waiting", "cancelled"): "over",
    ("waiting", "failed"): "over",
    ("waiting", "requeued"): "waiting",
    ("running", "requeued"): "waiting",
    ("running", "held"): "waiting",
    ("running", "succeeded"): "good",
    ("running", "failed"): "over",
    ("running", "cancelled"): "over",
    ("over", "retried"): "waiting",
}
"""From one state to the next by an event. Events of other kinds change no state."""
CHANGING = frozenset(kind for _, kind in STEPS)


@dataclass(frozen=True)
class Books:
    """One look at a spool and at its database."""

    jobs: tuple[Mapping[str, Any], ...]
    events: Mapping[int, tuple[Mapping[str, Any], ...]]
    files: Mapping[str, tuple[str, ...]]
    """The names in each folder of the spool."""

    @staticmethod
    def of(spool: Path, database: Path) -> Books:
        with closing(sqlite3.connect(database, timeout=60)) as connection:
            connection.row_factory = sqlite3.Row
            jobs = tuple(map(dict, connection.execute("SELECT * FROM jobs ORDER BY id")))
            events: dict[int, tuple[Mapping[str, Any], ...]] = {job["id"]: () for job in jobs}
            for row in connection.execute("SELECT * FROM events ORDER BY id"):
                events[row["job_id"]] = (*events.get(row["job_id"], ()), dict(row))
        files = {folder: tuple(sorted(path.name for path in (spool / folder).iterdir())) for folder in FOLDERS}
        return Books(jobs, events, files)

    def yamls(self, folder: str) -> tuple[str, ...]:
        return tuple(name for name in self.files[folder] if not name.endswith(OUTCOMES) and not name.startswith("."))


def unsettled(books: Books, ignored: Iterable[str] = ()) -> list[str]:
    """What is still to be done: nothing, once the daemon has come to rest."""
    left = [f"incoming/{name}" for name in books.files["incoming"] if name not in set(ignored)]
    left += [f"active/{name}" for name in books.files["active"]]
    left += [f"job {job['id']} {job['state']}" for job in books.jobs if job["state"] in ("queued", "held", "running")]
    left += [f"file of job {job['id']} at {job['spool_path']}" for job in books.jobs if _misplaced(job)]
    return left


def _misplaced(job: Mapping[str, Any]) -> bool:
    path, place = job["spool_path"], PLACE.get(job["state"])
    return bool(path and place and not path.startswith(f"{place}/"))


def lost_files(books: Books, dropped: Mapping[str, bytes], spool: Path) -> list[str]:
    """Every dropped file was taken, and is there once, under the path of its row and with its content."""
    said = []
    rows = Counter(job["spool_path"] for job in books.jobs if job["spool_path"])
    said += [f"{count} rows have the file {path}" for path, count in rows.items() if count > 1]
    there = {f"{folder}/{name}" for folder in FOLDERS[1:] for name in books.yamls(folder)}
    said += [f"{path} has no row" for path in sorted(there - rows.keys())]
    said += [f"{path} is on record and missing" for path in sorted(rows.keys() - there)]
    names = Counter(job["spool_name"] for job in books.jobs if job["spool_path"])
    said += [f"{name} was dropped once and is there {names[name]} times" for name in dropped if names[name] != 1]
    for job in books.jobs:
        path = spool / str(job["spool_path"])
        if job["spool_path"] in there and path.read_bytes() != dropped.get(job["spool_name"], b""):
            said.append(f"{path} has other content than {job['spool_name']}")
    return said


def wrong_outcomes(books: Books, spool: Path) -> list[str]:
    """Each finished file has the outcome of its job beside it, and no other file lies about. For a spool at rest."""
    said, expected = [], set()
    for job in books.jobs:
        path = job["spool_path"]
        if not path:
            continue
        endings = (".result.json", ".result.md") if job["state"] == "succeeded" else (".reason.json",)
        expected |= {path, *(path + ending for ending in endings)}
        outcome = spool / (path + endings[0])
        if not outcome.exists():
            said.append(f"{path} has no {endings[0]}")
            continue
        told = json.loads(outcome.read_text())
        machines = {one["job_id"] for one in told.get("machines", ())} or {told.get("job_id")}
        if job["id"] not in machines:
            said.append(f"{outcome} is about {machines}, not job {job['id']}")
    there = {f"{folder}/{name}" for folder in ("done", "failed", "rejected") for name in books.files[folder]}
    return [*said, *(f"{name} belongs to no job" for name in sorted(there - expected))]


def illegal_paths(books: Books) -> list[str]:
    """The events of each job are a path of states that ends in the state of its row, with one claim an attempt."""
    said = []
    for job in books.jobs:
        state, claims = "", 0
        path = [event["kind"] for event in books.events[job["id"]] if event["kind"] in CHANGING]
        for kind in path:
            claims += kind == "claimed"
            if (state, kind) not in STEPS:
                said.append(f"job {job['id']}: {kind} when {state or 'new'}: {path}")
                break
            state = STEPS[state, kind]
        else:
            now = {"succeeded": "good", "queued": "waiting", "held": "waiting"}.get(job["state"], job["state"])
            if state != ("over" if job["state"] in ("failed", "cancelled", "rejected") else now):
                said.append(f"job {job['id']} is {job['state']} after {path}")
            if claims != job["attempt"]:
                said.append(f"job {job['id']}: attempt {job['attempt']} after {claims} claims")
    active = Counter(job["content_key"] for job in books.jobs if job["state"] in ("queued", "held", "running"))
    return [*said, *(f"{count} active jobs of content {key}" for key, count in active.items() if count > 1)]
