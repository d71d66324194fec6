"""`h2kvmctl explain`: the meaning of an error code, from the catalogue, which no other command loads."""

from __future__ import annotations

import difflib
import re
import textwrap
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from hyper2kvmd.cli.output import Output, json_option
from hyper2kvmd.errors import InvalidInput

if TYPE_CHECKING:
    from hyper2kvmd.catalogue import Explanation

WIDTH = 88
"""Columns of the longest line, apart from commands, which are never broken."""


def _codes(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    from hyper2kvmd import catalogue

    found = catalogue.entries().values()
    return [CompletionItem(entry.code, help=entry.meaning) for entry in found if entry.code.startswith(begun)]


@click.command()
@click.argument("code", required=False, shell_complete=_codes)
@json_option
@click.pass_obj
def explain(output: Output, code: str | None) -> None:
    """Explain an error code and its remedy, or list all codes.

    An entry has the meaning of the code, its usual causes, and what to do.
    """
    if code is None:
        _list(output)
        return
    entry = _find(code.strip("[]").lower())
    if output.json:
        output.data(entry)
    else:
        _show(output, entry)


def _find(wanted: str) -> Explanation:
    """Raises InvalidInput (`code-unknown`)."""
    from hyper2kvmd import catalogue

    known = catalogue.entries()
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "List all codes: `h2kvmctl explain`"
    raise InvalidInput("code-unknown", f"{wanted} is not an error code", hint=hint)


def _list(output: Output) -> None:
    from hyper2kvmd import catalogue

    if output.json:
        output.data(list(catalogue.entries().values()))
        return
    for subject in catalogue.read():
        output.line(subject.title, style="bold")
        output.facts([(f"  {entry.code}", entry.meaning) for entry in subject.entries])
        output.line("")


def _show(output: Output, entry: Explanation) -> None:
    from hyper2kvmd import catalogue

    output.line(entry.code, style="bold")
    _paragraph(output, entry.meaning)
    _paragraph(output, f"Kind: {entry.kind or 'helper'} ({catalogue.KINDS[entry.kind]}).")
    for title, texts in (("Causes", entry.causes), ("What to do", entry.remedy)):
        output.line("")
        output.line(title, style="bold")
        for text in texts:
            _paragraph(output, text, bullet="- ")


def _paragraph(output: Output, text: str, *, bullet: str = "") -> None:
    whole = re.sub("`[^`]*`", lambda command: command[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    wrapper = textwrap.TextWrapper(
        width=min(WIDTH, output.console.width),
        initial_indent=f"  {bullet}",
        subsequent_indent=" " * (2 + len(bullet)),
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in wrapper.wrap(whole):
        output.line(line.replace("\N{NO-BREAK SPACE}", " "))


COMMANDS: list[click.Command] = [explain]
