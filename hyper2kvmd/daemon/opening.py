"""What a daemon takes hold of before it serves: its directories and their locks, and the database of its queue."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.care import before_steps
from hyper2kvmd.daemon.folders import prepare
from hyper2kvmd.daemon.locks import Locks, require_same_queue
from hyper2kvmd.daemon.remains import enter_remains, highest_number
from hyper2kvmd.daemon.wire import FileSystemRole
from hyper2kvmd.errors import BrokenInstallation, Failure, Unsafe
from hyper2kvmd.host.destination import make_configured, require_configured
from hyper2kvmd.host.workspace import ensure_private_dir, follow_links
from hyper2kvmd.jobs.salvaged import has_numbers
from hyper2kvmd.jobs.store import Store

log = logging.getLogger(__name__)

OF_JOBS: tuple[FileSystemRole, ...] = ("output", "conversion")


def open_queue(config: DaemonConfig, locks: Locks) -> Store:
    """The database of the queue, when the locks are held and spool and state directory belong to it.

    Raises BrokenInstallation: `already-running`, `state-dir-unusable`, `queue-foreign`, and those of `prepare` and the
    store.
    """
    with _using("state-dir-unusable", "the state directory", config.state_dir, "state_dir"):
        hold("state", config, locks)
    store = Store(config.database_url, before_steps(config))
    try:
        prepare(config.spool_dir)
        with _using("spool-unusable", "the spool directory", config.spool_dir, "spool_dir"):
            hold("spool", config, locks)
        _require_same_queue(config, store)
    except BaseException:
        store.close()
        raise
    return store


def hold_places(config: DaemonConfig, locks: Locks) -> None:
    """Make the configured conversion and output directories, and hold the locks of all that jobs may use.

    A directory that cannot be used now is examined when a job uses it. Raises BrokenInstallation (`already-running`,
    `config-invalid`).
    """
    require_output_apart(config)
    for role in OF_JOBS:
        try:
            hold(role, config, locks)
        except BrokenInstallation:
            raise
        except Failure as failure:
            log.warning("%s_dir: %s", role, failure)
        except OSError as error:
            log.warning("%s_dir %s: %s", role, directory_of(role, config), error.strerror)
    for directory in config.allowed_conversion_dirs:
        locks.take_if_possible("allowed_conversion_dirs", directory)


def hold(role: FileSystemRole, config: DaemonConfig, locks: Locks) -> Path:
    """The directory, made if missing, with its lock held.

    Raises OSError, BrokenInstallation (`already-running`), TryLater (`database-unavailable`), and as
    `ensure_private_dir` does.
    """
    directory = directory_of(role, config)
    if role == "conversion":
        directory = follow_links(directory)
        ensure_private_dir(directory)
    elif role == "output":
        make_configured(directory)
    elif role == "state":
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    locks.take(f"{role}_dir", directory)
    if role == "state":
        locks.take_database()
    return directory


def directory_of(role: FileSystemRole, config: DaemonConfig) -> Path:
    directories: Mapping[FileSystemRole, Path] = {
        "conversion": config.conversion_dir,
        "output": config.output_dir,
        "state": config.state_dir,
        "spool": config.spool_dir,
    }
    return directories[role]


def require_output_apart(config: DaemonConfig) -> None:
    """`output_dir` must be fit for submitters' results. Raises BrokenInstallation (`config-invalid`).

    A directory that cannot be opened now is checked when a job publishes in it.
    """
    try:
        require_configured(config.bounds)
    except Unsafe as refusal:
        raise BrokenInstallation(
            "config-invalid",
            f"output_dir {refusal.message}",
            hint="Name a directory that holds nothing but finished images",
        ) from refusal
    except OSError as error:
        log.warning("output_dir %s: %s", config.output_dir, error.strerror)


def _require_same_queue(config: DaemonConfig, store: Store) -> None:
    identity = store.identity()
    marks = {"spool_dir": config.spool_dir, "state_dir": config.state_dir}
    with _using("state-dir-unusable", "the directory", config.state_dir, "state_dir"):
        rightful = require_same_queue(marks, identity, fresh=not store.has_jobs())
    if not has_numbers(store):
        with _using("spool-unusable", "the spool directory", config.spool_dir, "spool_dir"):
            highest = highest_number(config)
            enter_remains(config, store, rightful, highest=highest, lost=rightful != identity)
    elif rightful != identity:
        store.set_identity(rightful)


@contextmanager
def _using(code: str, what: str, directory: Path, key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BrokenInstallation(
            code,
            f"{what} {error.filename or directory} cannot be used: {error.strerror}",
            hint=f"Create it for the daemon's user, or set another {key}",
        ) from error
