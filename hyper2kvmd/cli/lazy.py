"""A group of commands that imports the module of a command only when that command is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click


@dataclass(frozen=True)
class LazyCommand:
    """A command in the list COMMANDS of a module of hyper2kvmd.cli."""

    module: str
    help: str
    """The first sentence of its help. Empty: the command is not listed."""


class LazyGroup(click.Group):
    def __init__(self, *arguments: Any, places: Mapping[str, LazyCommand], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._places = places

    def list_commands(self, _context: click.Context) -> list[str]:
        return sorted(self._places)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        place = self._places.get(name)
        if place is None:
            return None
        found: list[click.Command] = import_module(f"hyper2kvmd.cli.{place.module}").COMMANDS
        return next(command for command in found if command.name == name)

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.help) for name, place in sorted(self._places.items()) if place.help])
