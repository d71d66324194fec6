"""`h2kvmctl`, also called `hyper2kvm`: one migration here and now, or many by the daemon."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

import hyper2kvmd
from hyper2kvmd import config, errors, spec
from hyper2kvmd.cli import cleanup, oneshot, queue, views
from hyper2kvmd.cli.display import Display
from hyper2kvmd.cli.explain import explain
from hyper2kvmd.cli.output import Output, json_option, located, problems_of
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.orders import Limits, Order

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


class OneShot:
    """The options before the command, which `local` shares with no command at all."""

    def __init__(
        self,
        file: Path | None,
        conversion_dir: Path | None,
        output_dir: Path | None,
        threads: int | None,
        dry_run: bool,
    ) -> None:
        self.file, self.conversion_dir, self.output_dir, self.dry_run = file, conversion_dir, output_dir, dry_run
        self.limits = Limits(threads=threads or 0)
        self.given = bool(file or conversion_dir or output_dir or threads or dry_run)


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 migration failed, 2 invalid input, 3 refused as unsafe, 75 try again later,"
    " 78 broken configuration or database, 130 interrupted.",
)
@click.version_option(hyper2kvmd.__version__, prog_name="h2kvmctl")
@click.option("--config", "file", type=FILE, help="Migrate what this YAML asks for, here and now.")
@click.option("--conversion-dir", type=FOLDER, help="Convert in this directory.")
@click.option("--output-dir", type=FOLDER, help="Put image, report and domain XML here.")
@click.option("--threads", type=click.IntRange(1, 256), help="Convert with so many threads, not one for each core.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
@json_option
@click.pass_context
def cli(
    context: click.Context,
    file: Path | None,
    conversion_dir: Path | None,
    output_dir: Path | None,
    threads: int | None,
    dry_run: bool,
) -> None:
    """Turn VMware disks into guests that boot on KVM."""
    asked = OneShot(file, conversion_dir, output_dir, threads, dry_run)
    context.meta["oneshot"] = asked
    if context.invoked_subcommand is None:
        if not asked.given:
            click.echo(context.get_help())
            context.exit(2)
        _migrate(context, asked)
    elif context.invoked_subcommand != "local" and asked.given:
        raise click.UsageError(f"--config and its like run one migration: leave out `{context.invoked_subcommand}`")


@cli.command(hidden=True)
@json_option
@click.pass_context
def local(context: click.Context) -> None:
    """The word that users of hyper2kvm end their command with."""
    _migrate(context, context.meta["oneshot"])


def _migrate(context: click.Context, asked: OneShot) -> None:
    output = context.ensure_object(Output)
    if asked.file is None:
        raise click.UsageError("--config names no migration YAML")
    migration = _load(output, asked.file)
    conversion = oneshot.conversion_place(migration, asked.conversion_dir)
    output_dir = oneshot.output_place(migration, asked.output_dir).path
    order = oneshot.order(migration, conversion.path, output_dir, asked.limits)
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
    """Relative paths begin at the current directory, as on any command line and as in hyper2kvm."""
    output.source = str(file)
    return spec.load(file, base=Path.cwd())


def _plan(output: Output, order: Order) -> None:
    with Display(output.events) as display:
        source = oneshot.plan(order, display.emit)
    if output.json:
        output.data({"source": source, "order": order})
    else:
        views.plan(output, order, source)


@cli.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@json_option
@click.pass_obj
def check(output: Output, files: tuple[Path, ...]) -> None:
    """List the errors of migration YAMLs, or what they come to."""
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
        conversion, target = oneshot.conversion_place(migration, None), oneshot.output_place(migration, None)
        results.append({"file": file, "problems": [], "migration": migration})
        if not output.json:
            views.migration(output, file, migration, conversion, target)
    if output.json:
        output.data(results)
    if failed:
        raise click.exceptions.Exit(errors.InvalidInput.exit_code)


@cli.command()
@click.argument("file", type=FILE)
@click.option("--conversion-dir", type=FOLDER, help="Where the image would be converted.")
@click.option("--output-dir", type=FOLDER, help="Where the image would be put.")
@json_option
@click.pass_obj
def plan(output: Output, file: Path, conversion_dir: Path | None, output_dir: Path | None) -> None:
    """Read the source and say what a migration would do and need. Writes nothing."""
    migration = _load(output, file)
    conversion = oneshot.conversion_place(migration, conversion_dir)
    _plan(output, oneshot.order(migration, conversion.path, oneshot.output_place(migration, output_dir).path))


@cli.command()
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@click.option("--config", "file", type=FILE, default=config.DEFAULT_PATH, show_default=True, help="The daemon's.")
@json_option
@click.pass_obj
def gc(output: Output, dry_run: bool, file: Path) -> None:
    """Remove abandoned working folders, old spool files and rows of old jobs, never those of a live job."""
    removed = cleanup.collect(config.load(file), dry_run=dry_run)
    if output.json:
        output.data(removed)
    else:
        views.removed(output, removed, dry_run=dry_run)
    if removed.problems:
        raise click.exceptions.Exit(errors.MigrationFailed.exit_code)


for command in (explain, *queue.COMMANDS):
    cli.add_command(command)


def main() -> None:
    output = Output()
    sys.exit(_run(output))


def _run(output: Output) -> int:
    try:
        return int(cli.main(prog_name="h2kvmctl", standalone_mode=False, obj=output) or 0)
    except click.ClickException as error:
        if output.json or "--json" in sys.argv[1:]:  # the error may come before the option was reached
            output.json = True
            hint = "see `h2kvmctl --help` and the command's own"
            output.failure(errors.InvalidInput("usage", error.format_message(), hint=hint))
        else:
            error.show()
        return error.exit_code
    except errors.Failure as failure:
        output.failure(failure)
        return failure.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
        return 128 + signal.SIGPIPE
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        hint = "correct what the system complains of, then try again"
        output.failure(errors.MigrationFailed("system-error", what, hint=hint, kind=errors.Kind.OPERATOR))
        return errors.MigrationFailed.exit_code
    except (click.Abort, KeyboardInterrupt):
        return errors.Interrupted.exit_code


if __name__ == "__main__":
    main()
