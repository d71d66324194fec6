"""`h2kvmctl database`: checks, backs up, restores and rebuilds the database of the queue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyper2kvmd import config, errors
from hyper2kvmd.cli.options import FILE
from hyper2kvmd.cli.output import Output, json_option
from hyper2kvmd.installed import CONFIGURATION

if TYPE_CHECKING:
    from hyper2kvmd.config import DaemonConfig
    from hyper2kvmd.jobs.backups import Backups

ACTIONS = ("check", "backup", "restore", "rebuild")


@click.command("database")
@click.argument("action", type=click.Choice(ACTIONS), metavar="ACTION")
@click.argument("backup", type=FILE, required=False, metavar="FILE")
@click.option(
    "--config", "file", type=FILE, default=CONFIGURATION, show_default=True, help="The daemon's configuration."
)
@json_option
@click.pass_obj
def database(output: Output, action: str, backup: Path | None, file: Path) -> None:
    """Check, back up, restore or rebuild the database of the queue.

    `check` reads the whole file from the disk and reports damage. `backup` makes a backup now. Both work while the
    daemon is running.

    `restore` puts a backup in the place of the database: FILE, or the newest one. Jobs that have ended since are marked
    so by the results in the spool. Jobs of which nothing is found are held, so that nothing runs twice.

    `rebuild` begins with a new database, for one that is lost without a backup: the YAMLs in `active/` become jobs
    again when the daemon starts. Finished and rejected jobs are found by their results in the spool. Jobs that were
    submitted over the control socket have no file: submit them again.

    For both, stop the daemon first. The former database is kept beside the new one. All work on SQLite only, and
    have to be run as the user of the daemon.
    """
    if backup is not None and action != "restore":
        raise click.UsageError(f"{action} accepts no FILE")
    loaded = config.load(file)
    if action == "check":
        result = _check(loaded)
    elif action == "backup":
        result = _back_up(loaded)
    else:
        result = _replace(loaded, action, backup, "" if file == CONFIGURATION else f" --config {file}")
    if output.json:
        output.data(result)
    else:
        output.facts([(name.replace("_", " "), _shown(value)) for name, value in result.items()])


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _backups(loaded: DaemonConfig) -> Backups:
    from hyper2kvmd.jobs.backups import Backups
    from hyper2kvmd.jobs.database import sqlite_path, url_of

    path = sqlite_path(url_of(loaded.database_url))
    if path is None:
        raise errors.InvalidInput(
            "database-on-server",
            "database_url is a database server, which has its own backups",
            hint="Use the tools of the server, such as pg_dump and pg_restore",
        )
    return Backups.of(path, loaded.backups.directory, loaded.backups.keep)


def _check(loaded: DaemonConfig) -> dict[str, Any]:
    """Raises BrokenInstallation (`database-corrupt`), TryLater (`database-unavailable`)."""
    from hyper2kvmd.jobs.backups import require_whole
    from hyper2kvmd.jobs.examine import examine
    from hyper2kvmd.jobs.refusals import unavailable
    from hyper2kvmd.jobs.sqlite import require_usable
    from hyper2kvmd.units import local_time, size

    backups = _backups(loaded)
    path = backups.database
    require_usable(path)
    finding = examine(path, "integrity_check")
    require_whole(finding.damage, path)
    if finding.fault:
        raise unavailable(path, finding.fault)
    newest = next(iter(backups.found()), None)
    return {
        "database": f"{path}: no damage was found",
        "size": size(path.stat().st_size),
        "newest_backup": f"{newest.path} of {local_time(newest.made)}" if newest else "none",
    }


def _back_up(loaded: DaemonConfig) -> dict[str, Any]:
    from hyper2kvmd.cli.database_repair import require_owner
    from hyper2kvmd.jobs.backups import BY_HAND
    from hyper2kvmd.jobs.sqlite import require_usable

    backups = _backups(loaded)
    require_usable(backups.database)
    require_owner(backups.database)
    return {"backup": backups.make(BY_HAND)}


def _replace(loaded: DaemonConfig, action: str, backup: Path | None, options: str) -> dict[str, Any]:
    from hyper2kvmd.cli import database_repair

    backups = _backups(loaded)
    with database_repair.stopped(loaded, backups.database, f"database {action}{options}"):
        if action == "restore":
            return database_repair.restore(loaded, backups, backup)
        return database_repair.rebuild(loaded, backups)


COMMANDS: list[click.Command] = [database]
