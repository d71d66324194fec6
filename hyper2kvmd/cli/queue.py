"""The commands that talk to the daemon over its control socket."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from hyper2kvmd.cli import views
from hyper2kvmd.cli.completion import job_ids
from hyper2kvmd.cli.output import (
    Command,
    Output,
    json_option,
    printable,
    problems_of,
)
from hyper2kvmd.client import Client
from hyper2kvmd.daemon.wire import Status
from hyper2kvmd.errors import InvalidInput, MigrationFailed
from hyper2kvmd.model.jobs import WARNED, Job, State

POLL_SECONDS = 0.5
EXIT_CODES = {State.SUCCEEDED: 0, State.REJECTED: InvalidInput.exit_code}
"""Exit codes of `watch`, by the final state of the job; the other states are failures."""

COMMANDS: list[click.Command] = []


def socket_option(command: Command) -> Command:
    return click.option(
        "--socket",
        type=click.Path(path_type=Path),
        help="The daemon's control socket. Without it, the one of the configuration.",
    )(command)


def over_socket(name: str, *arguments: Callable[[Any], Any]) -> Callable[[Callable[..., None]], click.Command]:
    """A command that gets `(output, daemon, ...)`."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @click.pass_obj
        def body(output: Output, /, socket: Path | None, **given: Any) -> None:
            function(output, Client(socket), **given)

        built: Any = json_option(socket_option(body))
        for argument in reversed(arguments):
            built = argument(built)
        command = click.command(name, help=function.__doc__)(built)
        COMMANDS.append(command)
        return command

    return decorate


def job_argument(*states: State) -> Callable[[Any], Any]:
    """The id of a job; shells propose those in these states, or all."""
    return click.argument("job_id", type=click.IntRange(min=1), metavar="ID", shell_complete=job_ids(*states))


JOB = job_argument()
ACTIVE = [state for state in State if state.active]


@over_socket(
    "submit",
    click.argument(
        "files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE..."
    ),
)
def submit(output: Output, daemon: Client, files: tuple[Path, ...]) -> None:
    """Submit migration YAMLs to the daemon. Each machine becomes a job.

    Of a file, all machines are queued or none. Relative paths in a file are resolved from the current directory, and
    `~/` is the home directory of this user in the user database.
    """
    from hyper2kvmd import yaml_source

    jobs: list[Job] = []
    refused: list[tuple[Path, InvalidInput]] = []
    for file in files:
        try:
            queued = daemon.submit(yaml_source.read_file(file), base=Path.cwd(), name=printable(file.stem)).jobs
        except InvalidInput as failure:
            refused.append((file, failure))
            if not output.json:
                output.failure(failure, source=str(file))
        else:
            jobs += queued
            for job in () if output.json else queued:
                output.line(f"job {job.id}: {job.vm_name} {job.state}")
                views.notes(output, job.notes)
    if output.json:
        output.data([*jobs, *({"file": file, "problems": problems_of(failure)} for file, failure in refused)])
    if refused:
        raise click.exceptions.Exit(refused[-1][1].exit_code)


@over_socket("list")
def list_jobs(output: Output, daemon: Client) -> None:
    """List jobs, newest first."""
    jobs = daemon.jobs().items
    if output.json:
        output.data(list(jobs))
    else:
        views.jobs(output, jobs)


@over_socket("show", JOB)
def show(output: Output, daemon: Client, job_id: int) -> None:
    """Show one job: its state, its settings, its warnings and its problems."""
    job = daemon.job(job_id)
    if output.json:
        output.data(job)
    else:
        events = daemon.events(job_id) if job.warnings else []
        views.job(output, job, (event.message for event in events if event.kind == WARNED))


@over_socket("logs", JOB)
def logs(output: Output, daemon: Client, job_id: int) -> None:
    """Show the events of a job with their times.

    Those of the kind `machine` describe the new machine, with a line for each disk and network card.
    """
    events = daemon.events(job_id)
    if output.json:
        output.data(list(events))
    else:
        for event in events:
            output.line(views.event_line(event))


@over_socket("watch", job_argument(*ACTIVE))
def watch(output: Output, daemon: Client, job_id: int) -> None:
    """Follow a job until it finishes. The exit status is 0 if it succeeded, 2 if it was rejected, otherwise 1."""
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bars

    seen = 0
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    shown = output.console.is_terminal and not output.json
    with Bars(*columns, console=output.console, transient=True, disable=not shown) as bars:
        bar = bars.add_task(f"job {job_id}", total=1.0)
        while True:
            job = daemon.job(job_id)
            for event in daemon.events(job_id, after=seen):
                if event.id > seen and not output.json:
                    output.line(views.event_line(event))
                seen = max(seen, event.id)
            what = job.stage.value if job.stage else job.state.value
            bars.update(bar, completed=job.progress, description=printable(f"{job.vm_name}: {what}"))
            if not job.state.active:
                break
            time.sleep(POLL_SECONDS)
    if output.json:
        output.data(job)
    else:
        views.problems(output, job.problems)
    if code := EXIT_CODES.get(job.state, MigrationFailed.exit_code):
        raise click.exceptions.Exit(code)


@over_socket("status")
def status(output: Output, daemon: Client) -> None:
    """Show the state of the daemon: its jobs, slots and free space."""
    now = daemon.status()
    if output.json:
        output.data(now)
    else:
        views.status(output, now)


def _job_verb(name: str, verb: Callable[[Client, int], Job], states: Sequence[State], summary: str) -> None:
    """`states`: those in which the verb makes sense."""

    def change(output: Output, daemon: Client, job_id: int) -> None:
        job = verb(daemon, job_id)
        if output.json:
            output.data(job)
        else:
            output.line(f"job {job.id}: {job.vm_name} {job.state}")

    change.__doc__ = summary
    over_socket(name, job_argument(*states))(change)


def _queue_verb(name: str, verb: Callable[[Client], Status], result: str, summary: str) -> None:
    def change(output: Output, daemon: Client) -> None:
        now = verb(daemon)
        if output.json:
            output.data(now)
        else:
            output.line(f"the queue is {result}")

    change.__doc__ = summary
    over_socket(name)(change)


_job_verb(
    "cancel", Client.cancel, ACTIVE, "Stop a job. Its working folder is kept for a retry if the conversion has begun."
)
_job_verb(
    "retry",
    Client.retry,
    [State.FAILED, State.CANCELLED],
    "Queue a failed or cancelled job again. It continues after the last finished stage if its working folder is still "
    "there and the source did not change. Otherwise it starts over.\n\n"
    "The note in `show` says how long the folder is kept. If its images are already published, only the domain is "
    "registered. To start over in any case, submit the YAML again.",
)
_job_verb("hold", Client.hold, [State.QUEUED], "Hold a queued job until it is released.")
_job_verb("release", Client.release, [State.HELD], "Allow a held job to start.")
_queue_verb(
    "pause",
    Client.pause,
    "paused",
    "Start no more jobs; running jobs continue. The pause stays in effect after a restart of the daemon.",
)
_queue_verb("resume", Client.resume, "running", "Start jobs again.")
_queue_verb("drain", Client.drain, "draining", "Finish running jobs, then stop the daemon.")
