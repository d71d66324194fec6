"""`h2kvmctl`, also called `hyper2kvm`: one-shot runs, and the commands to the daemon.

Only the modules of the requested command are imported, so that `--help` is fast.
"""

from __future__ import annotations

import os
import shlex
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
    "batch": LazyCommand("listing", "Show a batch and its jobs."),
    "batches": LazyCommand("listing", "List batches, newest first."),
    "cancel": LazyCommand("verbs", "Stop jobs."),
    "check": LazyCommand("local", "List the errors of migration YAMLs, or their resulting settings."),
    "database": LazyCommand("database", "Check, back up, restore or rebuild the database of the queue."),
    "doctor": LazyCommand("doctor", "Examine this host: programs, rights, kernel, directories, daemon."),
    "drain": LazyCommand("queue", "Finish running jobs, then stop the daemon."),
    "explain": LazyCommand("explain", "Explain an error code and its remedy, or list all codes."),
    "gc": LazyCommand("gc", "Remove old working folders, spool files and rows of jobs that are over."),
    "hold": LazyCommand("verbs", "Hold queued jobs until they are released."),
    "list": LazyCommand("listing", "List jobs, newest first."),
    "local": LazyCommand("local", ""),
    "logs": LazyCommand("watch", "Show the events of jobs with their times."),
    "notify-test": LazyCommand("notifying", "Send a test notification to the destinations of the configuration."),
    "pause": LazyCommand("queue", "Start no more jobs; running jobs continue."),
    "plan": LazyCommand("local", "Read the source and show what a migration would do and need."),
    "priority": LazyCommand("verbs", "Change the priority of waiting jobs."),
    "release": LazyCommand("verbs", "Allow held jobs to start."),
    "report": LazyCommand("details", "Print the report of a job that succeeded: as Markdown, or as JSON with --json."),
    "resume": LazyCommand("queue", "Start jobs again."),
    "retry": LazyCommand("verbs", "Queue jobs again that failed, were cancelled, or are held because of a failure."),
    "schema": LazyCommand("schema", "Print the JSON Schema of a migration YAML or of the configuration."),
    "show": LazyCommand(
        "details", "Show jobs: state, stages with their times, space, repairs, warnings, and errors with their remedy."
    ),
    "status": LazyCommand("queue", "Show the state of the daemon: its jobs, slots and free space."),
    "submit": LazyCommand("submit", "Submit migration YAMLs to the daemon."),
    "watch": LazyCommand("watch", "Follow jobs until they finish."),
}


SOURCES = (".ova", ".ovf", ".vmx", ".vmdk")


class Commands(LazyGroup):
    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raises click.UsageError with a hint for a file or a misspelled name in the place of a command."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(f"{name} is not a command. {_instead_of(name)}", context)
        return super().resolve_command(context, args)


def _instead_of(name: str) -> str:
    word = shlex.quote(name)
    if Path(name).suffix.lower() in SOURCES:
        return f"To migrate it, write its path into a YAML (`{Path(name).suffix[1:].lower()}: {name}`), and run that."
    if "/" in name or "." in name or Path(name).is_file():
        return (
            f"To run it here, use `h2kvmctl --config {word}`; to give it to the daemon, use `h2kvmctl submit {word}`."
        )
    import difflib  # for a misspelled name only

    similar = difflib.get_close_matches(name, COMMANDS, n=1)
    listed = ", ".join(name for name in sorted(COMMANDS) if COMMANDS[name].help)
    return f"Did you mean {similar[0]}?" if similar else f"The commands are {listed}."


@click.group(
    cls=Commands,
    places=COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 migration failed, 2 invalid input, 3 refused as unsafe, 4 already active,"
    " 75 try again later, 78 unusable configuration, helper or database, 130 interrupted.",
)
@click.version_option(hyper2kvmd.__version__, prog_name="h2kvmctl")
@click.option(
    "--config",
    "files",
    type=FILE,
    multiple=True,
    help="Run the migrations of this YAML without the daemon. Relative paths in it are resolved from the current "
    "directory, and `~/` is the home directory of this user. If repeated, keys of later files override those of"
    " earlier ones. Several machines are migrated one after the other. If some fail, the others are migrated "
    "nevertheless, and the exit status is the highest one of them.",
)
@click.option(
    "--conversion-dir",
    type=FOLDER,
    help="Convert in this directory. Without it, the first of these that is set is used: the key `conversion_dir` in"
    " the YAML, `HYPER2KVM_CONVERSION_DIR`, the daemon's configuration (if its directory belongs to this user),"
    " and `~/.cache/hyper2kvm/conversions`. The directory must belong to this user, and the directories above "
    "it to this user or root. Nobody else may be able to write to any of them, except for directories above it "
    "with the sticky bit.",
)
@click.option(
    "--output-dir",
    type=FOLDER,
    help="Put image, report and domain XML into this directory. Without it, the YAML's `output_dir` is used, or else"
    " the current directory.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    metavar="NUMBER",
    help="Number of threads for the conversion, 1 to 256. Without it, there is one for each core.",
)
@click.option("--dry-run", is_flag=True, help="Show what the migration would do. Write nothing.")
@click.option("--debug", is_flag=True, help="Log each external command to standard error, as a shell command line.")
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
