"""`h2kvmctl notify-test`: sends a test notification."""

from __future__ import annotations

import click

from hyper2kvmd.cli.output import Output
from hyper2kvmd.cli.remote import over_socket
from hyper2kvmd.client import Client
from hyper2kvmd.errors import sentences

TIMEOUT_SECONDS = 900.0
"""Each program of a hook_dir may take a minute."""


@over_socket("notify-test", click.argument("destination", required=False))
def notify_test(output: Output, daemon: Client, destination: str | None) -> None:
    """Send a test notification to the destinations of the configuration.

    With a name, it is sent to that entry of `notify` only. Each is tried once. The exit status is 1 if one of them
    fails.
    """
    tried = Client(daemon.socket, timeout_seconds=TIMEOUT_SECONDS).test_notifications(destination)
    if output.json:
        output.data(list(tried))
    for one in () if output.json else tried:
        if one.problem is None:
            output.line(f"{one.destination}: delivered")
        else:
            fact = sentences(one.problem.message, one.problem.hint)
            output.line(f"{one.destination}: not delivered: {fact} [{one.problem.code}]")
    if not tried and not output.json:
        output.line("notify in the configuration has no destinations")
    if not all(one.delivered for one in tried):
        raise click.exceptions.Exit(1)


COMMANDS: list[click.Command] = [notify_test]
