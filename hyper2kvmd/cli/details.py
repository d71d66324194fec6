"""The commands that show single jobs: `show` and `report`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from hyper2kvmd.cli.completion import job_ids
from hyper2kvmd.cli.output import Output, printable
from hyper2kvmd.cli.remote import over_socket
from hyper2kvmd.cli.selectors import STATES, Selected, over_jobs
from hyper2kvmd.cli.verbs import finish
from hyper2kvmd.errors import Failure

if TYPE_CHECKING:
    from hyper2kvmd.client import Client
    from hyper2kvmd.model.guest import Change
    from hyper2kvmd.model.jobs import Job


@over_jobs("show", STATES)
def show(output: Output, daemon: Client, selected: Selected) -> None:
    """Show jobs: state, stages with their times, space, repairs, warnings, and errors with their remedy."""
    if not output.json:
        from hyper2kvmd.cli import job_views

        for number, job in enumerate(selected.jobs):
            if number:
                output.line("")
            job_views.job(output, job, daemon.events(job.id), _repairs(daemon, job))
    finish(output, selected, list(selected.jobs), [0])


def _repairs(daemon: Client, job: Job) -> Sequence[Change]:
    """From the published report. None if it cannot be read: it belongs to the submitter by now."""
    from pydantic import TypeAdapter

    from hyper2kvmd.model.guest import Change

    if job.state.value != "succeeded":
        return ()
    with suppress(Failure, ValueError, KeyError, TypeError):
        changes = json.loads(daemon.report(job.id))["guest"]["changes"]
        return TypeAdapter(tuple[Change, ...]).validate_python(changes)
    return ()


@over_socket(
    "report",
    click.argument("job_id", metavar="ID", type=click.IntRange(min=1), shell_complete=job_ids("succeeded")),
)
def report(output: Output, daemon: Client, job_id: int) -> None:
    """Print the report of a job that succeeded: as Markdown, or as JSON with --json."""
    if output.json:
        output.data(json.loads(daemon.report(job_id)))
    else:
        for line in daemon.report(job_id, format="markdown").splitlines():
            click.echo("\t".join(map(printable, line.split("\t"))))


COMMANDS: list[click.Command] = [show, report]
