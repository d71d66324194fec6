"""Puts another file in the place of the database, while the daemon is stopped."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hyper2kvmd.config import DaemonConfig, SpoolFolder
from hyper2kvmd.daemon.names import OUTCOME_SUFFIXES, REASON, RESULT
from hyper2kvmd.errors import BrokenInstallation, NotFound, TryLater
from hyper2kvmd.jobs.backups import Backups
from hyper2kvmd.jobs.database import create, url_of
from hyper2kvmd.jobs.database_lock import DatabaseLock
from hyper2kvmd.jobs.examine import back_up
from hyper2kvmd.jobs.refusals import as_owner, corrupt, denied, unavailable
from hyper2kvmd.jobs.restored import Restored, continue_numbers, settle
from hyper2kvmd.jobs.sqlite import put_in_place
from hyper2kvmd.model.outcome import Outcome

GAP = 1000
"""Numbers that are left out after the highest one that is found: jobs that left no trace may have had them."""


@contextmanager
def stopped(config: DaemonConfig, path: Path, command: str) -> Iterator[None]:
    """Hold the lock of the database, which a running daemon has.

    Raises TryLater (`daemon-running`), and BrokenInstallation (`database-unreadable`) for another user.
    """
    require_owner(path)
    lock = DatabaseLock(config.database_url, f"process {os.getpid()}, h2kvmctl {command}")
    try:
        lock.take()
    except BrokenInstallation as refusal:
        repeated = as_owner(path, f"h2kvmctl {command}")
        raise TryLater(
            "daemon-running",
            refusal.message,
            hint=f"Run `systemctl stop hyper2kvmd`, then `{repeated}`, then `systemctl start hyper2kvmd`",
        ) from refusal
    try:
        yield
    finally:
        lock.close()


def require_owner(path: Path) -> None:
    """The daemon cannot use files that another user makes. Raises BrokenInstallation (`database-unreadable`)."""
    if path.parent.exists() and path.parent.stat().st_uid != os.geteuid():
        raise denied(path, "its directory belongs to another user")


def restore(config: DaemonConfig, backups: Backups, chosen: Path | None) -> dict[str, Any]:
    """Raises NotFound (`backup-missing`), BrokenInstallation (`database-corrupt`), TryLater, OSError."""
    source = chosen or _newest(backups)
    path = backups.database
    draft = path.with_name(f"{path.name}.restoring")
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    finding = back_up(source, draft)
    if finding.damage:
        raise corrupt(source, "; ".join(finding.damage))
    if finding.fault:
        raise unavailable(source, finding.fault)
    continue_numbers(draft, _highest_number(config, path) + GAP)
    address = url_of(config.database_url).set(database=str(draft)).render_as_string(hide_password=False)
    done = settle(address, _outcomes(config), _active_claims(config))
    aside = _put_aside(path)
    put_in_place(draft, path)
    return {"restored": source, "former_database": aside or "none", **_facts(done)}


def rebuild(config: DaemonConfig, backups: Backups) -> dict[str, Any]:
    """Raises BrokenInstallation (`database-unreadable`), OSError."""
    path = backups.database
    highest = _highest_number(config, path)
    aside = _put_aside(path)
    path.unlink(missing_ok=True)
    create(url_of(config.database_url), path)
    continue_numbers(path, highest + GAP if highest else 0)
    return {
        "new_database": path,
        "former_database": aside or "none",
        "become_jobs_again": f"{len(_active_claims(config))} files in {config.spool_dir / SpoolFolder.ACTIVE}",
    }


def _newest(backups: Backups) -> Path:
    for backup in backups.found():
        return backup.path
    raise NotFound(
        "backup-missing",
        f"{backups.folder} has no backup of {backups.database.name}",
        hint="Give the path of a backup, or run `h2kvmctl database rebuild` if there is none",
    )


def _put_aside(path: Path) -> Path | None:
    """Give the file a second name, with its journal, which must not be applied to another database."""
    aside = path.with_name(f"{path.name}.replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    journal = path.with_name(f"{path.name}-journal")
    if path.exists():
        aside.unlink(missing_ok=True)
        aside.hardlink_to(path)
    if journal.exists() and journal.stat().st_size == 0:
        journal.unlink()
    elif journal.exists():
        journal.replace(aside.with_name(f"{aside.name}-journal"))
    return aside if path.exists() else None


# ------------------------------------------------------------ what the directories know


def _highest_number(config: DaemonConfig, path: Path) -> int:
    """Of the jobs that left a trace: in the former database, the working folders, or the spool."""
    numbers = [_last_number(path), *(outcome.job_id for _, outcome in _outcomes(config))]
    for directory in config.conversion_dirs:
        if directory.is_dir():
            numbers += [int(word) for one in directory.iterdir() if (word := one.name.rpartition(".")[2]).isdecimal()]
    return max((number for number in numbers if number < 1 << 40), default=0)


def _last_number(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
    except sqlite3.Error:
        return 0
    return int(row[0]) if row else 0


def _outcomes(config: DaemonConfig) -> list[tuple[str, Outcome]]:
    """The results in the spool, each with the path of its YAML, relative to the spool directory."""
    found = []
    for name in (SpoolFolder.DONE, SpoolFolder.FAILED):
        folder = config.spool_dir / name
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            suffix = next((one for one in OUTCOME_SUFFIXES if path.name.endswith(one)), None)
            if suffix in (RESULT, REASON) and (outcome := _read(path)) is not None:
                found.append((f"{name}/{path.name.removesuffix(suffix)}", outcome))
    return found


def _read(path: Path) -> Outcome | None:
    try:
        return Outcome.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _active_claims(config: DaemonConfig) -> frozenset[str]:
    active = config.spool_dir / SpoolFolder.ACTIVE
    return frozenset(one.name for one in active.iterdir()) if active.is_dir() else frozenset()


def _facts(done: Restored) -> dict[str, Any]:
    return {"ended_since": done.ended, "continue": done.queued, "held": done.held}
