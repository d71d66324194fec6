"""`h2kvmctl gc`, which the daily timer runs."""

from __future__ import annotations

from pathlib import Path

import click

from hyper2kvmd import config, errors
from hyper2kvmd.cli import cleanup, views
from hyper2kvmd.cli.options import FILE
from hyper2kvmd.cli.output import Output, json_option


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@click.option(
    "--config", "file", type=FILE, default=config.DEFAULT_PATH, show_default=True, help="The daemon's configuration."
)
@json_option
@click.pass_obj
def gc(output: Output, dry_run: bool, file: Path) -> None:
    """Remove old working folders, spool files and rows of jobs that are over.

    In the configured output directory, remove hidden drafts of killed jobs, and bring back files that they had set
    aside. The key `retention` in the daemon's configuration sets the ages. Nothing of a live job is ever removed.

    A working folder that no job on record knows stays for a day after it was first seen, because its job may come back
    with a restored database. Nothing is removed while the database cannot be read or the clock is doubtful. File
    systems that are mounted below a folder are not entered.

    A conversion directory that others can replace, or whose path has a link of another user, is left unchanged and
    reported.
    """
    removed = cleanup.collect(config.load(file), dry_run=dry_run)
    if output.json:
        output.data(removed)
    else:
        views.removed(output, removed, dry_run=dry_run)
    if removed.problems:
        raise click.exceptions.Exit(errors.MigrationFailed.exit_code)


COMMANDS: list[click.Command] = [gc]
