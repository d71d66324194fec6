"""What a shell proposes for arguments. Nothing is proposed if the daemon does not answer at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import click
from click.shell_completion import CompletionItem

from hyper2kvmd.errors import Failure

if TYPE_CHECKING:
    from hyper2kvmd.model.jobs import Job

PATIENCE_SECONDS = 0.5
PROPOSED = 200
"""Jobs that are asked for, the newest first."""
Completer: TypeAlias = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def job_ids(*states: str) -> Completer:
    """Ids of jobs in these states, or of any, with the names of their VMs."""

    def complete(context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        return [
            CompletionItem(str(job.id), help=f"{job.vm_name} {job.state}")
            for job in _jobs(context, states)
            if str(job.id).startswith(begun)
        ]

    return complete


def batch_names(context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Names of the batches of the newest jobs."""
    names = dict.fromkeys(job.batch for job in _jobs(context, ()) if job.batch)
    return [CompletionItem(name) for name in names if name.startswith(begun)]


def _jobs(context: click.Context, states: tuple[str, ...]) -> tuple[Job, ...]:
    from hyper2kvmd.client import Client
    from hyper2kvmd.daemon.wire import JobsQuery
    from hyper2kvmd.model.jobs import State

    try:
        daemon = Client(context.params.get("socket"), timeout_seconds=PATIENCE_SECONDS)
        return daemon.jobs(JobsQuery(state=tuple(map(State, states)), limit=PROPOSED)).items
    except Failure:
        return ()
