"""What a shell proposes for arguments. Nothing is proposed if the daemon does not answer at once.

It reads the daemon's JSON itself: the typed client takes longer to load than the daemon to answer.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlencode

import click
from click.shell_completion import CompletionItem

from hyper2kvmd.errors import Failure

PATIENCE_SECONDS = 0.5
PROPOSED = 200
"""Jobs that are asked for, the newest first."""
Completer: TypeAlias = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def job_ids(*states: str) -> Completer:
    """Ids of jobs in these states, or of any, with the names of their VMs."""

    def complete(context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        return [
            CompletionItem(str(job["id"]), help=f"{job['vm_name']} {job['state']}")
            for job in _jobs(context, states)
            if str(job["id"]).startswith(begun)
        ]

    return complete


def batch_names(context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Names of the batches of the newest jobs."""
    names = dict.fromkeys(job["batch"] for job in _jobs(context, ()) if job["batch"])
    return [CompletionItem(name) for name in names if name.startswith(begun)]


def _jobs(context: click.Context, states: tuple[str, ...]) -> Sequence[dict[str, Any]]:
    from hyper2kvmd.socket_connection import SocketConnection, default_socket

    query = urlencode([*(("state", state) for state in states), ("limit", PROPOSED)])
    try:
        connection = SocketConnection(context.params.get("socket") or default_socket(), PATIENCE_SECONDS)
        try:
            connection.request("GET", f"/v1/jobs?{query}")
            answer = connection.getresponse()
            return list(json.loads(answer.read())) if answer.status == http.client.OK else ()
        finally:
            connection.close()
    except (Failure, OSError, http.client.HTTPException, ValueError):
        return ()
