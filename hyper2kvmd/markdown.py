"""Parts of Markdown pages (GitHub-flavoured) whose texts may come from guests or from other users."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias

Row: TypeAlias = tuple[str, ...]


def columns(headings: Row, rows: Iterable[Row]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(plain(cell) for cell in row)} |"


def table(rows: list[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def plain(text: str) -> str:
    """Text from a guest on one line, without effect in Markdown or HTML."""
    return plain_part(" ".join(text.split()))


def plain_part(text: str) -> str:
    """The same for a part of a line."""
    return re.sub(r"[\\`*\[\]|!#]", r"\\\g<0>", html.escape(re.sub(r"\s", " ", text), quote=False))


def code(text: str) -> str:
    """Our own text or a path, as code in a table; backticks in it do not end the code."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", "\\|")


def fenced(text: str, language: str = "") -> list[str]:
    """A code block that the text in it cannot end."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return [f"{fence}{language}", text.rstrip("\n"), fence]
