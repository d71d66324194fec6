"""`h2kvmctl`, also called `hyper2kvm`: one-shot runs, and the commands to the daemon.

Only the modules of the requested command are imported, so that `--help` is fast.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

import hyper2kvmd
from hyper2kvmd import errors
from hyper2kvmd.cli.lazy import LazyCommand, LazyGroup
from hyper2kvmd.cli.options import FILE, FOLDER, Given
from hyper2kvmd.cli.output import Output, json_option

COMMANDS = {
    "cancel": LazyCommand("queue", "Stop a job."),
    "check": LazyCommand("local", "List the errors of migration YAMLs, or their resulting settings."),
    "drain": LazyCommand("queue", "Finish running jobs, then stop the daemon."),
    "explain": LazyCommand("explain", "Explain an error code and its remedy, or list all codes."),
    "gc": LazyCommand("gc", "Remove old working folders, spool files and rows of jobs that are over."),
    "hold": LazyCommand("queue", "Hold a queued job until it is released."),
    "list": LazyCommand("queue", "List jobs, newest first."),
    "local": LazyCommand("local", ""),
    "logs": LazyCommand("queue", "Show the events of a job with their times."),
    "pause": LazyCommand("queue", "Start no more jobs; running jobs continue."),
    "plan": LazyCommand("local", "Read the source and show what a migration would do and need."),
    "release": LazyCommand("queue", "Allow a held job to start."),
    "resume": LazyCommand("queue", "Start jobs again."),
    "retry": LazyCommand("queue", "Queue a failed or cancelled job again."),
    "show": LazyCommand("queue", "Show one job: its state, its settings, its warnings and its problems."),
    "status": LazyCommand("queue", "Show the state of the daemon."),
    "submit": LazyCommand("queue", "Submit migration YAMLs to the daemon."),
    "watch": LazyCommand("queue", "Follow a job until it finishes."),
}


@click.group(
    cls=LazyGroup,
    places=COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 migration failed, 2 invalid input, 3 refused as unsafe, 75 try again later,"
    " 78 unusable configuration, helper or database, 130 interrupted.",
)
@click.version_option(hyper2kvmd.__version__, prog_name="h2kvmctl")
@click.option(
    "--config",
    "files",
    type=FILE,
    multiple=True,
    help="Run the migrations of this YAML without the daemon. If repeated, later files override keys of earlier ones.",
)
@click.option("--conversion-dir", type=FOLDER, help="Convert in this directory.")
@click.option("--output-dir", type=FOLDER, help="Put image, report and domain XML into this directory.")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads for the conversion. [default: one per core]")
@click.option("--dry-run", is_flag=True, help="Show what the migration would do; write nothing.")
@click.option("--debug", is_flag=True, help="Log each external command as a shell command line.")
@json_option
@click.pass_context
def cli(
    context: click.Context,
    files: tuple[Path, ...],
    conversion_dir: Path | None,
    output_dir: Path | None,
    threads: int | None,
    dry_run: bool,
    debug: bool,
) -> None:
    """Migrate virtual machines from VMware to KVM."""
    given = Given(files, conversion_dir, output_dir, threads, dry_run, debug)
    context.meta["given"] = given
    if context.invoked_subcommand is None:
        if not given.anything:
            click.echo(context.get_help())
            context.exit(2)
        from hyper2kvmd.cli.local import migrate

        migrate(context, given)
    elif context.invoked_subcommand != "local" and given.anything:
        raise click.UsageError(f"`{context.invoked_subcommand}` cannot be combined with --config and its options")


def main() -> None:
    output = Output()
    sys.exit(_run(output))


def _run(output: Output) -> int:
    try:
        return int(cli.main(prog_name="h2kvmctl", standalone_mode=False, obj=output) or 0)
    except click.ClickException as error:
        if output.json or "--json" in sys.argv[1:]:  # the error may come before the option was reached
            output.json = True
            hint = "See `h2kvmctl --help` and the --help of the command"
            output.failure(errors.InvalidInput("usage", error.format_message(), hint=hint))
        else:
            error.show()
        return error.exit_code
    except errors.Explained as failure:
        output.failure(failure)
        return failure.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
        return 128 + signal.SIGPIPE
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        hint = "Correct the reported error, then try again"
        output.failure(errors.MigrationFailed("system-error", what, hint=hint, kind=errors.Kind.OPERATOR))
        return errors.MigrationFailed.exit_code
    except (click.Abort, KeyboardInterrupt):
        return errors.Interrupted.exit_code


if __name__ == "__main__":
    main()
