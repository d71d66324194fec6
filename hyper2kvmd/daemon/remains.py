"""Finds what is left of a queue whose database is lost: results of jobs in the spool, and numbers of jobs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from hyper2kvmd import spec
from hyper2kvmd.config import DaemonConfig, SpoolFolder
from hyper2kvmd.daemon.dropped import content_key
from hyper2kvmd.daemon.locks import read_mark
from hyper2kvmd.daemon.names import REASON, RESULT
from hyper2kvmd.daemon.wire import MAX_TEXT, Rejection
from hyper2kvmd.host.person import Person
from hyper2kvmd.jobs.salvaged import EndedJob, take_over
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.jobs.transactions import Transactions
from hyper2kvmd.model.jobs import State
from hyper2kvmd.model.outcome import MachineOutcome, Outcome

log = logging.getLogger(__name__)

GAP = 1000
"""Numbers that are left out after the highest one that is found: jobs that left no trace may have had them."""
LARGEST = 1 << 30
"""A higher number at the end of a name is not the number of a job."""


def enter_remains(config: DaemonConfig, store: Transactions, identity: str | None, *, highest: int, lost: bool) -> int:
    """Put what is left of a lost database into this empty one, as a whole; return the number of jobs.

    `highest` is the highest number that is known. `lost`: there was a database, even if no job of it left a trace.
    """
    known = take_over(store, ended_jobs(config), highest + GAP if highest or lost else 0, identity)
    if highest or lost:
        log.warning(
            "the database is new: %d finished jobs were found, the next job gets the number %d",
            known,
            highest + GAP + 1,
        )
    return known


def mark_of(config: DaemonConfig) -> str | None:
    """The identity in the marks of spool and state directory; None if there is none, or if they differ."""
    marks = {read_mark(config.spool_dir), read_mark(config.state_dir)} - {None}
    return marks.pop() if len(marks) == 1 else None


def highest_number(config: DaemonConfig) -> int:
    """Of the jobs that left a trace in the spool or in working folders."""
    numbers = [one.job_id for _, outcome in outcomes(config) for one in outcome.machines]
    numbers += [rejection.job_id or 0 for _, rejection in _rejections(config)]
    for directory in config.conversion_dirs:
        with suppress(OSError):
            numbers += [int(word) for one in directory.iterdir() if (word := one.name.rpartition(".")[2]).isdecimal()]
    return max((number for number in numbers if number < LARGEST), default=0)


def outcomes(config: DaemonConfig) -> Iterator[tuple[str, Outcome]]:
    """The results in the spool, each with the path of its YAML, relative to the spool directory."""
    for folder, suffix in ((SpoolFolder.DONE, RESULT), (SpoolFolder.FAILED, REASON)):
        for path in _files(config, folder, suffix):
            with suppress(OSError, ValidationError):
                yield f"{folder}/{path.name.removesuffix(suffix)}", Outcome.model_validate_json(path.read_bytes())


def active_claims(config: DaemonConfig) -> frozenset[str]:
    active = config.spool_dir / SpoolFolder.ACTIVE
    return frozenset(one.name for one in active.iterdir()) if active.is_dir() else frozenset()


def ended_jobs(config: DaemonConfig) -> Iterator[EndedJob]:
    """The finished and rejected ones."""
    for path, outcome in outcomes(config):
        yield from _machines(config.spool_dir, path, outcome)
    for path, rejection in _rejections(config):
        if rejection.job_id is not None and 0 < rejection.job_id < LARGEST:
            origin = _origin(config.spool_dir, path, rejection.file, "")
            name = Path(rejection.file).stem
            yield EndedJob(rejection.job_id, name, State.REJECTED, origin, rejection.problems)


def _rejections(config: DaemonConfig) -> Iterator[tuple[str, Rejection]]:
    for path in _files(config, SpoolFolder.REJECTED, REASON):
        with suppress(OSError, ValidationError):
            name = f"{SpoolFolder.REJECTED}/{path.name.removesuffix(REASON)}"
            yield name, Rejection.model_validate_json(path.read_bytes())


def _files(config: DaemonConfig, folder: str, suffix: str) -> list[Path]:
    place = config.spool_dir / folder
    return sorted(path for path in place.iterdir() if path.name.endswith(suffix)) if place.is_dir() else []


def _machines(spool_dir: Path, path: str, outcome: Outcome) -> Iterator[EndedJob]:
    origin = _origin(spool_dir, path, outcome.file, outcome.submitter)
    data, migrations = _migrations(spool_dir / path, origin, outcome.file)
    if len(outcome.machines) > 1:
        origin = replace(origin, spool_group=origin.claim)
    for one in outcome.machines:
        if one.state.active or not 0 < one.job_id < LARGEST:
            continue
        holds = one.job_id == outcome.job_id
        parsed = migrations.get(one.vm_name)
        yield EndedJob(
            number=one.job_id,
            vm_name=one.vm_name,
            state=one.state,
            origin=origin if holds else replace(origin, claim=None, path=None),
            problems=one.problems,
            migration=parsed.migration if parsed else None,
            content_key=content_key(data, origin.submitter, one.vm_name) if parsed else "",
            attempts=one.attempts,
            stage=one.stage,
            warnings=len(one.warnings),
            note=_note(one),
            created=outcome.submitted,
            started=one.started,
            finished=one.finished,
        )


def _note(one: MachineOutcome) -> str:
    return str(one.images[0].path) if one.images else one.kept


def _origin(spool_dir: Path, path: str, name: str, submitter: str) -> Origin:
    """The file belongs to its submitter. Its name in active/ is lost: a retry needs a new one."""
    try:
        uid = (spool_dir / path).lstat().st_uid
    except OSError:
        return Origin(submitter=submitter, name=name)
    claim = f"{hashlib.sha256(path.encode()).hexdigest()[:12]}.{name}"
    return Origin(submitter=submitter or Person.of(uid).name, uid=uid, name=name, claim=claim, path=path)


def _migrations(path: Path, origin: Origin, name: str) -> tuple[bytes, Mapping[str, spec.Parsed]]:
    """What the file asks for, by VM name; nothing if it cannot be read any more."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT)
        home = Person.of(origin.uid).home()
        parsed = spec.parse(data.decode("utf-8-sig"), home=home, default_name=Path(name).stem)
    except (OSError, ValueError, spec.Rejected):
        return b"", {}
    return data, {one.migration.vm_name: one for one in parsed}
