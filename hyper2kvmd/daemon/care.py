"""Checks the database beside the daemon, if its start could not, and backs it up daily."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from pathlib import Path

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon import memory
from hyper2kvmd.daemon.threads import in_a_thread
from hyper2kvmd.errors import TryLater
from hyper2kvmd.jobs.backups import DAILY, Backups, require_whole
from hyper2kvmd.jobs.database import BeforeSteps, no_backup, sqlite_path, url_of
from hyper2kvmd.jobs.examine import examine

log = logging.getLogger(__name__)

LOOK_SECONDS = 600.0
"""Between two looks at the age of the newest backup."""


def backups_of(config: DaemonConfig) -> Backups | None:
    """None for a database on a server, which has its own backups."""
    path = sqlite_path(url_of(config.database_url))
    return None if path is None else Backups.of(path, config.backups.directory, config.backups.keep)


def before_steps(config: DaemonConfig) -> BeforeSteps:
    """Backs the database up before an upgrade of its schema."""
    backups = backups_of(config)
    if backups is None:
        return no_backup

    def back_up(_path: Path) -> None:
        backups.before_steps()

    return back_up


class DatabaseCare:
    def __init__(self, config: DaemonConfig, *, checked: bool) -> None:
        """`checked`: the whole file was checked when it was opened."""
        self._backups, self._checked = backups_of(config), checked

    def configure(self, config: DaemonConfig) -> None:
        self._backups = backups_of(config)

    async def follow(self) -> None:
        """Until this task is cancelled. Raises BrokenInstallation (`database-corrupt`)."""
        while True:
            backups = self._backups
            if backups is not None:
                await in_a_thread("database care", partial(self._look, backups))
            memory.give_back()
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self, backups: Backups) -> None:
        if not self._checked:
            finding = examine(backups.database)
            require_whole(finding.damage, backups.database)
            self._checked = not finding.fault
        try:
            if backups.due():
                log.info("the database was backed up: %s", backups.make(DAILY))
        except (TryLater, OSError) as failure:
            log.error("%s", failure)
