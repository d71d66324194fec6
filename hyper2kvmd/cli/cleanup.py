"""`h2kvmctl gc`: removes leftovers of killed workers and finished jobs after their retention time.

The database determines which jobs are live; without it, or while the clock is doubtful, nothing is removed. Directories
are opened once, and entries are found and removed through the descriptor: root follows no link of the service's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hyper2kvmd.cli.cleanup_clock import require_plausible_clock
from hyper2kvmd.config import DaemonConfig, SpoolFolder
from hyper2kvmd.daemon.names import yaml_name
from hyper2kvmd.errors import BrokenInstallation, Failure, TryLater
from hyper2kvmd.host.conversion_dir import ConversionDir, UnusedFolder, not_removed, open_conversion_dir
from hyper2kvmd.host.leftovers import tidy_directory
from hyper2kvmd.host.quarantine import QUARANTINE_SECONDS
from hyper2kvmd.host.removal import OPEN_DIRECTORY
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import Problem
from hyper2kvmd.progress import problem

if TYPE_CHECKING:
    from hyper2kvmd.jobs.questions import FolderOwner
    from hyper2kvmd.jobs.store import Store

DAY = 86_400
LOCK = "cleanup.lock"
"""In the state directory."""
OVER = (SpoolFolder.DONE, SpoolFolder.FAILED, SpoolFolder.REJECTED)
"""Folders of the spool with files of finished jobs; the others hold work."""


class Removed(Frozen):
    """Entries that were removed, or would be: folders of dead workers, spool files, rows of finished jobs."""

    folders: tuple[Path, ...] = ()
    quarantined: tuple[Path, ...] = ()
    """Working folders that no job on record knows: they stay for a day after they were first seen."""
    spool_files: tuple[Path, ...] = ()
    output_files: tuple[Path, ...] = ()
    """Hidden files in output directories: they were removed, or got their names back."""
    mounts: tuple[Path, ...] = ()
    """FUSE mounts of killed workers that were detached."""
    jobs: int = 0
    problems: tuple[Problem, ...] = ()
    """Errors about entries that could not be removed."""


class Quarantined(Frozen):
    path: Path


class Detached(Frozen):
    path: Path


Found = Path | Quarantined | Detached | Problem


def collect(config: DaemonConfig, *, dry_run: bool) -> Removed:
    """Remove files and jobs whose retention time is over.

    Raises with nothing removed: BrokenInstallation (`database-...`) when the database cannot be used, TryLater
    (`clock-doubtful`, and `cleanup-running` while another process does the same).
    """
    from hyper2kvmd.daemon.care import before_steps
    from hyper2kvmd.jobs.store import Store

    _require_database(config)
    store = Store(config.database_url, before_steps(config))
    try:
        with _alone(config.state_dir):
            require_plausible_clock(config.state_dir, store.newest_time(), dry_run=dry_run)
            return _collect(config, store, dry_run=dry_run)
    finally:
        store.close()


def _collect(config: DaemonConfig, store: Store, *, dry_run: bool) -> Removed:
    folders = [*_working_folders(config, store, dry_run=dry_run)]
    in_use = store.spool_files_in_use()
    files = [one for name in OVER for one in _spool_files(config, name, in_use, dry_run=dry_run)]
    hidden = (
        *tidy_directory(config.output_dir, _service_uid(config), dry_run=dry_run),
        *_drafts(config, store, dry_run),
    )
    jobs = store.forget(datetime.now(UTC) - timedelta(days=config.retention.jobs), dry_run=dry_run)
    return Removed(
        folders=tuple(one for one in folders if isinstance(one, Path)),
        quarantined=tuple(one.path for one in folders if isinstance(one, Quarantined)),
        spool_files=tuple(one for one in files if isinstance(one, Path)),
        output_files=tuple(dict.fromkeys(hidden)),
        mounts=tuple(one.path for one in folders if isinstance(one, Detached)),
        jobs=jobs,
        problems=tuple(one for one in (*folders, *files) if isinstance(one, Problem)),
    )


def _drafts(config: DaemonConfig, store: Store, dry_run: bool) -> Iterator[Path]:
    """Of jobs that ended in `publish`, in directories that they named. Opened as the service's user only."""
    from hyper2kvmd.daemon.clearing import ended_order, one_for_each_directory
    from hyper2kvmd.host.tidying import tidied

    if os.geteuid() != _service_uid(config):
        return
    for job in one_for_each_directory(store.killed_in_publish(None)):
        order = ended_order(config, job)
        with contextlib.suppress(Failure):  # the submitter may have lost their rights there
            yield from (order.output_dir / name for name in tidied(order, dry_run=dry_run))


def _opened_lock(state_dir: Path) -> int:
    """The open lock file, which only root and the service can open: whoever can open it can lock it. Raises OSError."""
    path, flags = state_dir / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        if os.geteuid() == 0:  # the unit of the service allows no change of owner
            os.fchown(handle, state_dir.stat().st_uid, -1)
        return handle
    return os.open(path, flags)


@contextlib.contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """Hold a lock in the state directory. Raises TryLater (`cleanup-running`)."""
    try:
        handle = _opened_lock(state_dir)
    except OSError:  # with a database on a server, the directory may not exist; a file system may be read-only
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise TryLater(
            "cleanup-running",
            f"another clean-up works with {state_dir}",
            hint="Wait for it to end: `h2kvmctl gc` or the service hyper2kvm-cleanup",
        ) from error
    try:
        yield
    finally:
        os.close(handle)


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


def _working_folders(config: DaemonConfig, store: Store, *, dry_run: bool) -> Iterator[Found]:
    """Folders that were removed, or would be, those in quarantine, and errors about others."""
    for conversion_dir in filter(os.path.exists, config.conversion_dirs):
        try:
            with open_conversion_dir(conversion_dir, _service_uid(config)) as directory:
                unused = directory.unused()
                owners = store.folder_owners(one.job_id for one in unused if one.job_id is not None)
                for folder in unused:
                    with _reported(directory.path / folder.name) as found:
                        found += _folder(config, store, directory, folder, owners, dry_run=dry_run)
                    yield from found
        except OSError as error:
            yield problem(not_removed(conversion_dir, error))
        except (TryLater, BrokenInstallation):
            raise
        except Failure as failure:
            yield problem(failure)


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[list[Found]]:
    """Errors about one entry concern no other one, but without the database nothing more is removed."""
    found: list[Found] = []
    try:
        yield found
    except (TryLater, BrokenInstallation):
        raise
    except FileNotFoundError:
        return
    except OSError as error:
        found.append(problem(not_removed(path, error)))
    except Failure as failure:
        found.append(problem(failure))


def _folder(
    config: DaemonConfig,
    store: Store,
    directory: ConversionDir,
    folder: UnusedFolder,
    owners: Mapping[int, FolderOwner],
    *,
    dry_run: bool,
) -> Iterator[Found]:
    path, job_id = directory.path / folder.name, folder.job_id
    owner = None if job_id is None else owners.get(job_id)
    yield from (Detached(path=one) for one in directory.detach_stale_mounts(folder.name, dry_run=dry_run))
    if owner is not None and owner.state.active:  # also if the folder is of another queue: its number is in use
        return
    since = folder.changed
    if job_id is not None and owner is not None and owner.owns(folder.name, job_id):
        since = max(since, owner.finished.timestamp() if owner.finished else since)
        if not dry_run:
            directory.end_quarantine(folder.name)
    elif job_id is not None and not _quarantine_is_over(directory, folder.name, dry_run=dry_run):
        yield Quarantined(path=path)
        return
    if time.time() - since < config.retention.conversions * DAY:
        return
    if dry_run:
        yield path
    elif directory.discard(folder.name, partial(_is_abandoned, store, job_id)):
        _note_removed(store, folder.name, job_id)
        yield path


def _quarantine_is_over(directory: ConversionDir, name: str, *, dry_run: bool) -> bool:
    since = directory.unknown_since(name)
    if since is None and not dry_run:
        directory.begin_quarantine(name)
    return since is not None and time.time() - since >= QUARANTINE_SECONDS


def _is_abandoned(store: Store, job_id: int | None) -> bool:
    if job_id is None:
        return True
    owner = store.folder_owners([job_id]).get(job_id)
    return owner is None or not owner.state.active


def _note_removed(store: Store, name: str, job_id: int | None) -> None:
    if job_id is None:
        return
    owner = store.folder_owners([job_id]).get(job_id)
    if owner is not None and owner.owns(name, job_id):
        store.note_removed_folder(job_id, "its retention time is over")


def _service_uid(config: DaemonConfig) -> int:
    """The user that the daemon runs as: the owner of its state directory."""
    return config.state_dir.stat().st_uid if config.state_dir.exists() else os.geteuid()


def _spool_files(
    config: DaemonConfig, name: SpoolFolder, in_use: Collection[str], *, dry_run: bool
) -> Iterator[Path | Problem]:
    """Files that were removed, or would be, and errors about the others.

    The time of the last rename counts too: a YAML may be older than its job. An outcome goes with its YAML. The files
    `in_use` stay: their jobs were retried.
    """
    folder, oldest = config.spool_dir / name, time.time() - config.retention.spool * DAY
    try:
        handle = os.open(folder, OPEN_DIRECTORY)
    except FileNotFoundError:
        return
    except OSError as error:
        yield problem(not_removed(folder, error))
        return
    try:
        for each in _older(handle, oldest):
            if f"{name}/{yaml_name(each)}" in in_use:
                continue
            try:
                if not dry_run:
                    os.unlink(each, dir_fd=handle)
            except FileNotFoundError:
                continue
            except OSError as error:
                yield problem(not_removed(folder / each, error))
            else:
                yield folder / each
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
