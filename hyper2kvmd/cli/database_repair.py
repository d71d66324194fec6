"""Puts another file in the place of the database, while the daemon is stopped."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hyper2kvmd.config import DaemonConfig, SpoolFolder
from hyper2kvmd.daemon.remains import GAP, active_claims, enter_remains, highest_number, mark_of, outcomes
from hyper2kvmd.errors import BrokenInstallation, NotFound, TryLater
from hyper2kvmd.jobs.backups import Backups
from hyper2kvmd.jobs.database import create, url_of
from hyper2kvmd.jobs.database_lock import DatabaseLock
from hyper2kvmd.jobs.examine import back_up
from hyper2kvmd.jobs.refusals import as_owner, corrupt, denied, unavailable
from hyper2kvmd.jobs.restored import Restored, settle
from hyper2kvmd.jobs.sqlite import journal_of, remove, replace_with
from hyper2kvmd.jobs.transactions import Transactions


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
    address = url_of(config.database_url).set(database=str(draft)).render_as_string(hide_password=False)
    number = _highest_number(config, path) + GAP
    done = settle(address, number, list(outcomes(config)), active_claims(config))
    aside = _replace(path, draft)
    return {"restored": source, "former_database": aside or "none", **_facts(done)}


def rebuild(config: DaemonConfig, backups: Backups) -> dict[str, Any]:
    """Raises BrokenInstallation (`database-unreadable`), OSError."""
    path = backups.database
    draft = path.with_name(f"{path.name}.rebuilding")
    remove(draft)
    url = url_of(config.database_url).set(database=str(draft))
    create(url, draft)
    store = Transactions(url.render_as_string(hide_password=False))
    try:
        known = enter_remains(config, store, mark_of(config), highest=_highest_number(config, path), lost=True)
    finally:
        store.close()
    aside = _replace(path, draft)
    return {
        "new_database": path,
        "former_database": aside or "none",
        "finished_jobs": f"{known} found in the spool",
        "become_jobs_again": f"{len(active_claims(config))} files in {config.spool_dir / SpoolFolder.ACTIVE}",
        "not_found": "jobs that were submitted without a file, over the control socket: submit them again",
    }


def _newest(backups: Backups) -> Path:
    for backup in backups.found():
        return backup.path
    raise NotFound(
        "backup-missing",
        f"{backups.folder} has no backup of {backups.database.name}",
        hint="Give the path of a backup, or run `h2kvmctl database rebuild` if there is none",
    )


def _replace(path: Path, draft: Path) -> Path | None:
    """Put the draft in the place of the file, which gets a second name, and its journal too."""
    aside = path.with_name(f"{path.name}.replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    exists = path.exists()
    for file, second in ((path, aside), (journal_of(path), journal_of(aside))):
        if file.exists():
            second.unlink(missing_ok=True)
            second.hardlink_to(file)
    replace_with(draft, path)
    return aside if exists else None


# ------------------------------------------------------------ what the directories know


def _highest_number(config: DaemonConfig, path: Path) -> int:
    return max(highest_number(config), _last_number(path))


def _last_number(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
    except sqlite3.Error:
        return 0
    return int(row[0]) if row else 0


def _facts(done: Restored) -> dict[str, Any]:
    return {"ended_since": done.ended, "continue": done.queued, "held": done.held}
