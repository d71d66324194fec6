"""`h2kvmctl gc`: removes leftovers of killed workers and finished jobs after their retention time.

The database determines which jobs are live; without it nothing is removed. Directories are opened once, and entries are
found and removed through the descriptor, so that root follows no link of the service's.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hyper2kvmd.config import DaemonConfig, SpoolFolder
from hyper2kvmd.daemon.names import yaml_name
from hyper2kvmd.errors import BrokenInstallation, Failure
from hyper2kvmd.host.leftovers import tidy_directory
from hyper2kvmd.host.workspace import OPEN_DIRECTORY, not_removed, open_conversion_dir
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import Problem
from hyper2kvmd.progress import problem

if TYPE_CHECKING:
    from hyper2kvmd.jobs.store import Store

DAY = 86_400
OVER = (SpoolFolder.DONE, SpoolFolder.FAILED, SpoolFolder.REJECTED)
"""Folders of the spool with files of finished jobs; the others hold work."""


class Removed(Frozen):
    """Entries that were removed, or would be: folders of dead workers, spool files, rows of finished jobs."""

    folders: tuple[Path, ...] = ()
    spool_files: tuple[Path, ...] = ()
    output_files: tuple[Path, ...] = ()
    """Hidden files in the configured output directory: they were removed, or got their names back."""
    jobs: int = 0
    problems: tuple[Problem, ...] = ()
    """Errors about entries that could not be removed."""


def collect(config: DaemonConfig, *, dry_run: bool) -> Removed:
    """Remove files and jobs whose retention time is over.

    Raises BrokenInstallation (`database-...`), with nothing removed, when the database cannot be used.
    """
    from hyper2kvmd.jobs.store import Store

    _require_database(config)
    store = Store(config.database_url)
    try:
        folders = [*_working_folders(config, store, dry_run=dry_run)]
        files = [one for name in OVER for one in _spool_files(config, config.spool_dir / name, dry_run=dry_run)]
        hidden = tidy_directory(config.output_dir, _service_uid(config), dry_run=dry_run)
        jobs = store.forget(datetime.now(UTC) - timedelta(days=config.retention.jobs), dry_run=dry_run)
    finally:
        store.close()
    return Removed(
        folders=tuple(one for one in folders if isinstance(one, Path)),
        spool_files=tuple(one for one in files if isinstance(one, Path)),
        output_files=hidden,
        jobs=jobs,
        problems=tuple(one for one in (*folders, *files) if isinstance(one, Problem)),
    )


def _require_database(config: DaemonConfig) -> None:
    """Opening a missing SQLite file would create an empty one, without live jobs."""
    path = config.database_url.removeprefix("sqlite:///")
    if path != config.database_url and _missing(path):
        raise BrokenInstallation(
            "database-missing",
            f"the job database {path} does not exist, so the live jobs are unknown",
            hint="Start hyper2kvmd once, or specify its configuration with --config",
        )


def _missing(path: str) -> bool:
    """False also for a file in a directory that this user may not search: opening it says so."""
    try:
        Path(path).stat()
    except PermissionError:
        return False
    except OSError:
        return True
    return False


def _working_folders(config: DaemonConfig, store: Store, *, dry_run: bool) -> Iterator[Path | Problem]:
    """Folders that were removed, or would be, and errors about the others."""
    live, age = _live(store), config.retention.conversions * DAY
    for conversion_dir in filter(os.path.exists, config.conversion_dirs):
        try:
            with open_conversion_dir(conversion_dir, _service_uid(config)) as directory:
                for name in directory.orphans(live, older_than_seconds=age):
                    try:
                        if dry_run:
                            yield directory.path / name
                        elif directory.discard(name, partial(_is_abandoned, store, name)):
                            _note_removed(store, name)
                            yield directory.path / name
                    except Failure as failure:
                        yield problem(failure)
        except Failure as failure:
            yield problem(failure)


def _live(store: Store) -> frozenset[str]:
    return frozenset(str(job_id) for job_id in store.active_ids())


def _is_abandoned(store: Store, name: str) -> bool:
    return name.rpartition(".")[2] not in _live(store)


def _note_removed(store: Store, name: str) -> None:
    job_id = name.rpartition(".")[2]
    if job_id.isdecimal():  # not a one-shot run's
        store.note_removed_folder(int(job_id), "its retention time is over")


def _service_uid(config: DaemonConfig) -> int:
    """The user that the daemon runs as: the owner of its state directory."""
    return config.state_dir.stat().st_uid if config.state_dir.exists() else os.geteuid()


def _spool_files(config: DaemonConfig, folder: Path, *, dry_run: bool) -> Iterator[Path | Problem]:
    """Files that were removed, or would be, and errors about the others.

    The time of the last rename counts too: a YAML may be older than its job. An outcome goes with its YAML.
    """
    oldest = time.time() - config.retention.spool * DAY
    try:
        handle = os.open(folder, OPEN_DIRECTORY)
    except FileNotFoundError:
        return
    except OSError as error:
        yield problem(not_removed(folder, error))
        return
    try:
        for name in _older(handle, oldest):
            try:
                if not dry_run:
                    os.unlink(name, dir_fd=handle)
            except FileNotFoundError:
                continue
            except OSError as error:
                yield problem(not_removed(folder / name, error))
            else:
                yield folder / name
    finally:
        os.close(handle)


def _older(handle: int, oldest: float) -> Sequence[str]:
    """Names of files in the open folder; an outcome is as old as its YAML, if that exists. Raises OSError."""
    changed: dict[str, float] = {}
    for name in sorted(os.listdir(handle)):
        with contextlib.suppress(FileNotFoundError):
            facts = os.stat(name, dir_fd=handle, follow_symlinks=False)
            if not stat.S_ISDIR(facts.st_mode):
                changed[name] = max(facts.st_mtime, facts.st_ctime)
    return [name for name, last in changed.items() if changed.get(yaml_name(name), last) <= oldest]
