"""The commands that follow jobs: `watch` and `logs`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from hyper2kvmd.cli.output import Output
from hyper2kvmd.cli.selectors import STATES, Selected, over_jobs
from hyper2kvmd.cli.verbs import finish, titled
from hyper2kvmd.errors import Interrupted, InvalidInput, MigrationFailed

if TYPE_CHECKING:
    from hyper2kvmd.client import Client
    from hyper2kvmd.model.jobs import Job

EXIT_CODES = {"succeeded": 0, "rejected": InvalidInput.exit_code}
"""By the final state of a job; the other states are failures."""


def exit_code(job: Job) -> int:
    return EXIT_CODES.get(job.state.value, MigrationFailed.exit_code)


def follow_jobs(
    output: Output,
    daemon: Client,
    numbers: Sequence[int] | None,
    *,
    history: bool = True,
    forever: bool = False,
    events_only: bool = False,
) -> tuple[Job, ...]:
    """Show jobs until they end; without numbers, until the queue is empty. Ctrl-C leaves the jobs alone."""
    from hyper2kvmd.cli.following import Follower, follow
    from hyper2kvmd.cli.live import Watched

    several = numbers is None or len(numbers) > 1
    try:
        with Watched(output, several=several, events_only=events_only) as display:
            return follow(Follower(daemon, numbers, history=history), display, forever=forever)
    except KeyboardInterrupt:
        raise _left_alone(numbers) from None


def _left_alone(numbers: Sequence[int] | None) -> Interrupted:
    if numbers is not None and len(numbers) == 1:
        return Interrupted(
            "watch-ended", f"job {numbers[0]} continues", hint=f"Run `h2kvmctl cancel {numbers[0]}` to stop it"
        )
    return Interrupted("watch-ended", "the jobs continue", hint="Run `h2kvmctl cancel ID` to stop one")


@over_jobs(
    "watch",
    ("queued", "held", "running"),
    click.option("--forever", is_flag=True, help="Continue when the queue is empty, until Ctrl-C."),
    optional=True,
)
def watch(output: Output, daemon: Client, selected: Selected | None, forever: bool) -> None:
    """Follow jobs until they finish.

    Without jobs, follow all that run, until none is running or queued. Ctrl-C ends only this command, and the jobs
    continue. The command also survives a restart of the daemon. The exit status is 0 if all jobs succeeded, 2 if one
    was rejected, otherwise 1.
    """
    if selected is None:
        jobs = follow_jobs(output, daemon, None, history=False, forever=forever)
        if not jobs and not output.json:
            output.line("no job is running or queued")
            return
        _conclude(output, Selected(jobs), jobs)
        return
    if forever:
        raise click.UsageError("--forever follows the whole queue: give no jobs with it.")
    numbers = [job.id for job in selected.jobs]
    jobs = follow_jobs(output, daemon, numbers, history=len(numbers) == 1) if numbers else ()
    _conclude(output, selected, jobs)


def _conclude(output: Output, selected: Selected, jobs: Sequence[Job]) -> None:
    say_outcome(output, jobs)
    finish(output, selected, list(jobs), [0, *map(exit_code, jobs)])


def say_outcome(output: Output, jobs: Sequence[Job]) -> None:
    """The errors of a single job, or a line about several."""
    if output.json or not jobs:
        return
    from hyper2kvmd.cli import views

    if len(jobs) == 1:
        views.problems(output, jobs[0].problems)
    else:
        output.line(outcome(jobs))


def outcome(jobs: Sequence[Job]) -> str:
    """`3 jobs: 2 succeeded, 1 failed (7 web01)`."""
    return f"{len(jobs)} jobs: {', '.join(_by_state(jobs))}"


def _by_state(jobs: Sequence[Job]) -> Iterator[str]:
    for state in STATES:
        members = [job for job in jobs if job.state.value == state]
        names = ", ".join(f"{job.id} {job.vm_name}" for job in members)
        if members:
            yield f"{len(members)} {state}" if state == "succeeded" else f"{len(members)} {state} ({names})"


@over_jobs(
    "logs",
    STATES,
    click.option("-f", "--follow", "following", is_flag=True, help="Show new events until the jobs finish."),
)
def logs(output: Output, daemon: Client, selected: Selected, following: bool) -> None:
    """Show the events of jobs with their times.

    Those of the kind `machine` describe the new machine, with a line for each disk and network card.
    """
    if following and output.json:
        raise click.UsageError("--follow shows lines: use `h2kvmctl logs --json` without it.")
    if following and selected.jobs:
        follow_jobs(output, daemon, [job.id for job in selected.jobs], events_only=True)
        finish(output, selected, [], [0])
        return
    events = [(job, daemon.events(job.id)) for job in selected.jobs]
    if not output.json:
        from hyper2kvmd.cli import job_views

        for job, listed in events:
            before = "" if len(events) == 1 else f"{titled(job)}  "
            for event in listed:
                output.line(f"{before}{job_views.event_line(event)}")
    finish(output, selected, [event for _, listed in events for event in listed], [0], always_list=True)


COMMANDS: list[click.Command] = [watch, logs]
