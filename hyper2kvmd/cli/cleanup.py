"""`h2kvmctl gc`: what killed workers and finished jobs leave behind, once its time is over.

The database says which jobs live. Where it cannot be asked nothing is removed.
"""

from __future__ import annotations

import contextlib
import stat
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.errors import BrokenInstallation, Failure
from hyper2kvmd.host import workspace
from hyper2kvmd.host.workspace import not_removed
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import Problem
from hyper2kvmd.progress import problem

DAY = 86_400
OVER = ("done", "failed", "rejected")
"""Folders of the spool whose files have had their day; the others hold work."""


class Removed(Frozen):
    """What was removed, or would be: folders of dead workers, spool files, rows of finished jobs."""

    folders: tuple[Path, ...] = ()
    spool_files: tuple[Path, ...] = ()
    jobs: int = 0
    problems: tuple[Problem, ...] = ()
    """What could not be removed."""


def collect(config: DaemonConfig, *, dry_run: bool) -> Removed:
    """Remove what retention no longer covers.

    Raises BrokenInstallation (`database-...`) with nothing removed when the database cannot be used.
    """
    from hyper2kvmd.jobs.store import Store

    _require_database(config)
    store = Store(config.database_url)
    try:
        folders: list[Path] = []
        problems: list[Problem] = []

        def live() -> frozenset[str]:
            return frozenset(str(job_id) for job_id in store.active_ids())

        def abandoned(job_id: str) -> bool:
            return job_id not in live()

        age = config.retention.conversions * DAY
        alive = live()
        orphans = (workspace.orphans(place, alive, older_than_seconds=age) for place in config.conversion_dirs)
        for folder in chain.from_iterable(orphans):
            job_id = folder.name.rpartition(".")[2]
            try:
                if dry_run or workspace.discard(folder, partial(abandoned, job_id)):
                    folders.append(folder)
            except Failure as failure:
                problems.append(problem(failure))
        files: list[Path] = []
        for path in _expired_files(config):
            try:
                if not dry_run:
                    path.unlink(missing_ok=True)
                files.append(path)
            except OSError as error:
                problems.append(problem(not_removed(path, error)))
        jobs = store.forget(datetime.now(UTC) - timedelta(days=config.retention.jobs), dry_run=dry_run)
    finally:
        store.close()
    return Removed(folders=tuple(folders), spool_files=tuple(files), jobs=jobs, problems=tuple(problems))


def _require_database(config: DaemonConfig) -> None:
    """Opening a missing SQLite file would make an empty one, in which no job lives."""
    path = config.database_url.removeprefix("sqlite:///")
    if path != config.database_url and not Path(path).exists():
        raise BrokenInstallation(
            "database-missing",
            f"the job database {path} does not exist, so nobody can say which jobs live",
            hint="start hyper2kvmd once, or name its configuration by --config",
        )


def _expired_files(config: DaemonConfig) -> tuple[Path, ...]:
    """By the time of the last rename too: a YAML may be older than its job."""
    oldest = time.time() - config.retention.spool * DAY
    found = []
    for name in OVER:
        with contextlib.suppress(FileNotFoundError):
            for path in sorted((config.spool_dir / name).iterdir()):
                status = path.lstat()
                if max(status.st_mtime, status.st_ctime) <= oldest and not stat.S_ISDIR(status.st_mode):
                    found.append(path)
    return tuple(found)
