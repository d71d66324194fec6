"""The form of commands that talk to the daemon over its control socket."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from hyper2kvmd.cli.output import Command, Output, json_option

Decorator = Callable[[Any], Any]


def socket_option(command: Command) -> Command:
    return click.option(
        "--socket",
        type=click.Path(path_type=Path),
        help="The daemon's control socket. Without it, the one of the configuration.",
    )(command)


def over_socket(name: str, *arguments: Decorator) -> Callable[[Callable[..., None]], click.Command]:
    """A command that gets `(output, daemon, ...)`."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @click.pass_obj
        def body(output: Output, /, socket: Path | None, **given: Any) -> None:
            from hyper2kvmd.client import Client

            function(output, Client(socket), **given)

        built = with_arguments(json_option(socket_option(body)), arguments)
        return click.command(name, help=function.__doc__)(built)

    return decorate


def with_arguments(function: Any, arguments: Iterable[Decorator]) -> Any:
    for argument in reversed(tuple(arguments)):
        function = argument(function)
    return function
