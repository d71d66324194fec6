"""The commands that change jobs. Each job is answered in a line of its own; the highest exit status counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from hyper2kvmd.cli.output import Output, failed
from hyper2kvmd.cli.selectors import Selected, over_jobs
from hyper2kvmd.errors import InvalidInput

if TYPE_CHECKING:
    from hyper2kvmd.client import Client
    from hyper2kvmd.model.jobs import Job

BUSY = {
    "plan": "is being planned",
    "convert": "is converting",
    "repair": "is being repaired",
    "verify": "is being verified",
    "publish": "is being published",
    "register": "is being registered",
}
WITH_FOLDER = ("convert", "repair", "verify")
"""Stages whose working folder holds images that a retry continues from."""


def change(output: Output, selected: Selected, verb: Callable[[Job], Job], answer: Callable[[Job, Job], str]) -> None:
    """Do it to each job. `answer` gets the job as it was and as it is now. Raises click.exceptions.Exit."""
    results: list[Any] = []
    codes = [0]
    for job in selected.jobs:
        try:
            changed = verb(job)
        except InvalidInput as failure:
            codes.append(failure.exit_code)
            results.append({"id": job.id, **failed(failure)})
            if not output.json:
                output.failure(failure)
        else:
            results.append(changed)
            if not output.json:
                output.line(answer(job, changed))
    finish(output, selected, results, codes)


def finish(
    output: Output, selected: Selected, results: list[Any], codes: list[int], *, always_list: bool = False
) -> None:
    """What is left to say: the JSON document, numbers without a job, that there was nothing to do, the exit status."""
    one = selected.one_job and not always_list
    if selected.unknown:
        failure = selected.failure()
        if selected.one_job:
            raise failure
        codes = [*codes, failure.exit_code]
        results = [*results, failed(failure)]
        if not output.json:
            output.failure(failure)
    elif not selected.jobs and not output.json:
        output.line("no job matches")
    if output.json:
        output.data(results[0] if one else results)
    if code := max(codes):
        raise click.exceptions.Exit(code)


def titled(job: Job) -> str:
    return f"job {job.id} ({job.vm_name})"


def cancelled(before: Job, now: Job) -> str:
    if not now.cancelling:
        return f"cancelled {titled(now)}"
    stage = before.stage.value if before.stage else ""
    kept = "; its working folder is kept for a retry" if stage in WITH_FOLDER else ""
    return f"cancelling {titled(now)}, which {BUSY.get(stage, 'is starting')}{kept}"


@over_jobs("cancel", ("queued", "held", "running"), changes=True)
def cancel(output: Output, daemon: Client, selected: Selected) -> None:
    """Stop jobs.

    The working folder of a job is kept for a retry if its conversion has begun.
    """
    change(output, selected, lambda job: daemon.cancel(job.id), cancelled)


@over_jobs("retry", ("failed", "cancelled", "held"), changes=True, only=lambda job: job.unattended)
def retry(output: Output, daemon: Client, selected: Selected) -> None:
    """Queue jobs again that failed, were cancelled, or are held because of a failure.

    A job continues after its last finished stage if its working folder is still there and the source did not change.
    Otherwise it starts over. The note in `show` says how long the folder is kept. If its images are already published,
    only the domain is registered. To start over in any case, submit the YAML again.
    """
    change(output, selected, lambda job: daemon.retry(job.id), lambda _, now: f"queued {titled(now)} again")


@over_jobs("hold", ("queued",), changes=True)
def hold(output: Output, daemon: Client, selected: Selected) -> None:
    """Hold queued jobs until they are released."""
    change(output, selected, lambda job: daemon.hold(job.id), lambda _, now: f"held {titled(now)}")


@over_jobs("release", ("held",), changes=True)
def release(output: Output, daemon: Client, selected: Selected) -> None:
    """Allow held jobs to start."""
    change(output, selected, lambda job: daemon.release(job.id), lambda _, now: f"released {titled(now)}")


PRIORITY = click.argument("value", type=click.IntRange(0, 9), metavar="PRIORITY")


@over_jobs("priority", ("queued", "held"), PRIORITY, changes=True)
def priority(output: Output, daemon: Client, selected: Selected, value: int) -> None:
    """Change the priority of waiting jobs.

    PRIORITY is 0 to 9; jobs with a higher one start first. A submitter may only lower it.
    """
    change(
        output,
        selected,
        lambda job: daemon.set_priority(job.id, value),
        lambda before, now: f"{titled(now)} has priority {now.priority} (was {before.priority})",
    )


COMMANDS: list[click.Command] = [cancel, hold, priority, release, retry]
