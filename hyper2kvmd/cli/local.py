"""The commands that migrate, plan or check without a daemon."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from hyper2kvmd import errors, spec
from hyper2kvmd.cli import oneshot, views
from hyper2kvmd.cli.display import Display
from hyper2kvmd.cli.options import FILE, FOLDER, Given
from hyper2kvmd.cli.output import Output, json_option, located, problems_of
from hyper2kvmd.host import run
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.orders import Limits, Order


@click.command(hidden=True)
@json_option
@click.pass_context
def local(context: click.Context) -> None:
    """Accepted for compatibility with hyper2kvm; it has no effect."""
    migrate(context, context.meta["given"])


def migrate(context: click.Context, asked: Given) -> None:
    output = context.ensure_object(Output)
    if asked.file is None:
        raise click.UsageError("--config names no migration YAML")
    if asked.debug:
        logging.basicConfig(format="%(message)s")
        run.log.setLevel(logging.DEBUG)
    migration = _load(output, asked.file)
    conversion = oneshot.conversion_directory(migration, asked.conversion_dir)
    output_dir = oneshot.output_directory(migration, asked.output_dir).path
    order = oneshot.order(migration, conversion.path, output_dir, Limits(threads=asked.threads or 0))
    if asked.dry_run or migration.dry_run:
        return _plan(output, order)
    with Display(output.events) as display:
        finished = oneshot.migrate(order, display.emit)
    if output.json:
        output.data(finished)
    else:
        views.finished(output, migration, finished)
    return None


def _load(output: Output, file: Path) -> Migration:
    """Relative paths are resolved from the current directory, as on any command line and as in hyper2kvm."""
    output.source = str(file)
    return spec.load(file, base=Path.cwd())


def _plan(output: Output, order: Order) -> None:
    daemon = oneshot.daemon_directories(order.migration)
    with Display(output.events) as display:
        planned = oneshot.plan(order, display.emit)
    if output.json:
        output.data({"plan": planned, "order": order, "daemon": daemon})
    else:
        views.plan(output, order, planned, daemon)


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@json_option
@click.pass_obj
def check(output: Output, files: tuple[Path, ...]) -> None:
    """List the errors of migration YAMLs, or their resulting settings."""
    results, failed = [], False
    for file in files:
        try:
            migration = spec.load(file, base=Path.cwd())
        except errors.InvalidInput as failure:
            failed = True
            results.append({"file": file, "problems": problems_of(failure)})
            if not output.json:
                for problem in problems_of(failure):
                    click.echo(located(problem, str(file)), err=True)
            continue
        conversion, published = oneshot.conversion_directory(migration, None), oneshot.output_directory(migration, None)
        results.append({"file": file, "problems": [], "migration": migration})
        if not output.json:
            views.migration(output, file, migration, conversion, published, oneshot.daemon_directories(migration))
    if output.json:
        output.data(results)
    if failed:
        raise click.exceptions.Exit(errors.InvalidInput.exit_code)


@click.command()
@click.argument("file", type=FILE)
@click.option("--conversion-dir", type=FOLDER, help="The conversion directory.")
@click.option("--output-dir", type=FOLDER, help="The output directory.")
@json_option
@click.pass_obj
def plan(output: Output, file: Path, conversion_dir: Path | None, output_dir: Path | None) -> None:
    """Read the source and show what a migration would do and need. Writes nothing."""
    migration = _load(output, file)
    conversion = oneshot.conversion_directory(migration, conversion_dir)
    _plan(output, oneshot.order(migration, conversion.path, oneshot.output_directory(migration, output_dir).path))


COMMANDS: list[click.Command] = [local, check, plan]
