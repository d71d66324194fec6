"""Backups of an SQLite database: made while it is in use, checked, and kept up to a number of each kind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hyper2kvmd.errors import Failure, TryLater
from hyper2kvmd.jobs.examine import back_up
from hyper2kvmd.jobs.refusals import corrupt
from hyper2kvmd.jobs.sqlite import confirmed

DAILY, BEFORE_STEPS, BY_HAND = "daily", "before-upgrade", "manual"
EVERY = timedelta(days=1)
AHEAD = timedelta(minutes=5)
"""A backup with a later time was named by a wrong clock. Regular corrections of a clock are smaller."""
NAME = re.compile(r"(?P<database>.+)\.(?P<time>\d{8}T\d{6}Z)\.(?P<kind>daily|before-upgrade|manual)")


@dataclass(frozen=True)
class Backup:
    path: Path
    kind: str
    made: datetime


@dataclass(frozen=True)
class Backups:
    """The backups of one database."""

    database: Path
    folder: Path
    keep: int
    """Of each kind; 0: none are made by the daemon."""

    @staticmethod
    def of(database: Path, folder: Path | None, keep: int) -> Backups:
        return Backups(database, folder or database.with_name("backups"), keep)

    def found(self) -> list[Backup]:
        """The newest first; those with a time in the future, named by a wrong clock, come last.

        Raises OSError, except for a folder that does not exist.
        """
        if not self.folder.exists():
            return []
        matches = ((path, NAME.fullmatch(path.name)) for path in self.folder.iterdir())
        known = [
            Backup(path, match["kind"], datetime.strptime(match["time"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC))
            for path, match in matches
            if match is not None and match["database"] == self.database.name
        ]
        now = datetime.now(UTC) + AHEAD
        return sorted(known, key=lambda one: (one.made <= now, one.made, one.path.name), reverse=True)

    def due(self) -> bool:
        """Whether the newest daily backup is older than a day, or has a time in the future."""
        newest = next((one for one in self.found() if one.kind == DAILY), None)
        if newest is None:
            return self.keep > 0
        age = datetime.now(UTC) - newest.made
        return self.keep > 0 and not -AHEAD <= age < EVERY

    def make(self, kind: str) -> Path:
        """Back the database up, and remove the oldest backups of that kind beyond `keep`.

        Raises BrokenInstallation (`database-corrupt`), TryLater (`backup-failed`, `database-unavailable`).
        """
        place = self.folder / f"{self.database.name}.{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{kind}"
        try:
            self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            finding = back_up(self.database, place)
            if not finding.damage and not finding.fault:
                self._remove_old(kind)
        except OSError as error:
            raise _failed(self.folder, error.strerror or str(error)) from error
        if finding.damage:
            raise confirmed(self.database, "; ".join(finding.damage))
        if finding.fault:
            raise _failed(self.folder, finding.fault)
        return place

    def before_steps(self) -> None:
        """Raises as `make`: without a backup, no step is applied, unless `keep` is 0."""
        if self.keep > 0:
            self.make(BEFORE_STEPS)

    def _remove_old(self, kind: str) -> None:
        for old in [one for one in self.found() if one.kind == kind][max(self.keep, 1) :]:
            old.path.unlink(missing_ok=True)


def _failed(folder: Path, fact: str) -> Failure:
    return TryLater(
        "backup-failed",
        f"no backup of the database could be made in {folder}: {fact}",
        hint="Correct the directory or its file system, or set backups: {directory: ...}",
    )


def require_whole(found: tuple[str, ...], path: Path) -> None:
    """Raises BrokenInstallation (`database-corrupt`) if anything was found."""
    if found:
        raise corrupt(path, "; ".join(found))
