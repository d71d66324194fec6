"""The output of commands: results on stdout, one-line errors on stderr, JSON on stdout with --json."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hyper2kvmd.errors import Explained, rendered
from hyper2kvmd.findings import Several

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from hyper2kvmd.cli.table import Line
    from hyper2kvmd.model.jobs import Problem

UNWRAPPED = 10_000
"""Columns when stdout is not a terminal: lines stay whole for grep."""

Command = TypeVar("Command", bound=Callable[..., Any])


def printable(text: str) -> str:
    """Text that guests or other users may have influenced, without control over the terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


@dataclass
class Output:
    json: bool = False
    source: str = ""
    """The file that the command is about, if there is only one."""

    @cached_property
    def console(self) -> Console:
        return _console(sys.stdout)

    @property
    def events(self) -> Console:
        """The console for a running migration: stderr if stdout is JSON."""
        return _console(sys.stderr) if self.json else self.console

    def line(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self.console.print(Text(printable(text), style=style), soft_wrap=True)

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None if standard output is none."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def rows(self, lines: Iterable[Line]) -> None:
        """The lines of a table, in colours if standard output is a terminal and NO_COLOR is not set."""
        coloured = self.width is not None and not os.environ.get("NO_COLOR")
        for line in lines:
            cells = (_styled(printable(cell.text), cell.style if coloured else "") for cell in line)
            click.echo("".join(cells).rstrip(), color=coloured)

    def aside(self, text: str) -> None:
        """A remark about the output: beside it on a terminal, on standard error elsewhere."""
        click.echo(printable(text), err=self.width is None)

    def paragraph(self, text: str, style: str = "", indent: int = 2) -> None:
        """A text: on a terminal broken between words, with later lines indented. Long words, as paths, stay whole."""
        if self.width is None or not text:
            self.line(text, style)
            return
        blanks = " " * indent
        width = max(self.width, 2 * indent)
        for line in textwrap.wrap(
            text, width, subsequent_indent=blanks, break_long_words=False, break_on_hyphens=False
        ):
            self.line(line, style)

    def facts(self, rows: list[tuple[str, str]]) -> None:
        """Two columns: names and values."""
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            self.line(f"{name:<{width}}  {value}")

    def table(self, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], unbroken: str = "") -> None:
        """On a terminal, cells are folded into its width: those of the column `unbroken` between words only.

        Elsewhere a row is one line, so the longest column should be the last one.
        """
        from rich.table import Column, Table
        from rich.text import Text

        columns = (Column(heading, overflow="fold") for heading in headings)
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        if unbroken in headings and self.console.measure(table).maximum >= self.console.width:
            number = headings.index(unbroken)
            words = (word for row in rows for word in (unbroken, *row[number].split()))
            table.columns[number].width = max(map(len, words))
        if self.console.is_terminal:
            self.console.print(table)
            return
        with self.console.capture() as captured:
            self.console.print(table)
        for line in captured.get().splitlines():
            self.line(line.rstrip())

    def data(self, value: BaseModel | dict[str, Any] | list[Any]) -> None:
        """One JSON document, on one line."""
        from pydantic_core import to_jsonable_python

        click.echo(json.dumps(to_jsonable_python(value), ensure_ascii=False))

    def items(self, values: Iterable[BaseModel]) -> None:
        """Print a JSON list, with only one item at a time in memory."""
        between = "["
        for value in values:
            click.echo(f"{between}{value.model_dump_json()}", nl=False)
            between = ", "
        click.echo("[]" if between == "[" else "]")

    def failure(self, failure: Explained, *, source: str = "") -> None:
        """Print the errors of a failed command; `source` is the file that contains them."""
        from hyper2kvmd.spec import Rejected

        file, source = source, source or self.source
        if self.json:
            self.data(failed(failure))
        if isinstance(failure, Rejected):
            for one in failure.problems:
                click.echo(located(one, source), err=True)
        else:
            for each in failure.failures if isinstance(failure, Several) else (failure,):
                _print_error(each, file)


def _styled(text: str, style: str) -> str:
    if not style:
        return text
    return click.style(text, bold=True) if style == "bold" else click.style(text, fg=style)


def failed(failure: Explained) -> dict[str, Any]:
    """A failure for --json."""
    from hyper2kvmd.progress import problem

    error = problem(failure).model_dump(mode="json", include={"code", "message", "hint", "kind"})
    return {"error": {**error, "exit_code": failure.exit_code}, "problems": problems_of(failure)}


def _print_error(failure: Explained, file: str = "") -> None:
    named = f"{file}: {failure.message}" if file and file not in failure.message else failure.message
    message = "\n".join(printable(line) for line in named.splitlines())
    click.echo(f"h2kvmctl: {rendered(message, printable(failure.hint), failure.code)}", err=True)
    if sys.stderr.isatty():
        click.echo(more_about(failure.code), err=True)


def problems_of(failure: Explained) -> list[Problem]:
    from hyper2kvmd.progress import problems
    from hyper2kvmd.spec import Rejected

    return list(failure.problems if isinstance(failure, Rejected) else problems(failure))


def located(problem: Problem, source: str) -> str:
    """`file:line:column: message. Remedy. [code]`, as compilers print it and editors understand it."""
    place = f"{problem.line}:{problem.column}:" if problem.line else ""
    source = problem.file or source
    prefix = f"{source}:{place} " if source else f"{place} ".lstrip()
    return printable(f"{prefix}{rendered(problem.message, problem.hint, problem.code)}")


def more_about(code: str) -> str:
    """A line for a terminal; logs and scripts have the code."""
    return printable(f"More: h2kvmctl explain {code}")


def json_option(command: Command) -> Command:
    def note(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            context.ensure_object(Output).json = True

    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=note,
        help="Print one JSON document on standard output, errors included.",
    )(command)


def _console(stream: Any) -> Console:
    from rich.console import Console

    if stream.isatty():
        return Console(file=stream, highlight=False)
    return Console(file=stream, highlight=False, width=UNWRAPPED, no_color=True, emoji=False)
