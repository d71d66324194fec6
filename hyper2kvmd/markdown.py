"""Parts of Markdown pages (GitHub-flavoured) whose texts may come from guests or from other users."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias

Row: TypeAlias = tuple[str, ...]
SPECIAL = re.compile(r"[\\`*\[\]|~!#]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)
"""What has an effect in Markdown in the middle of a line: the last two begin links without brackets."""
ADDRESS = re.compile(r"(?<=[\w.+-])@(?=[\w-])")
"""A mail address becomes a link, escaped or not. GitHub Flavored Markdown, Autolinks (extension)."""


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
    safe = html.escape(printable(re.sub(r"\s", " ", text)), quote=False)
    return ADDRESS.sub("@<!-- -->", SPECIAL.sub(r"\\\g<0>", safe))


def printable(text: str) -> str:
    """Without control characters, and without characters that turn the text around."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def code(text: str) -> str:
    """Our own text or a path, as code in a table; backticks in it do not end the code."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{printable(text)}{space}{fence}".replace("|", "\\|")


def fenced(text: str, language: str = "") -> list[str]:
    """A code block that the text in it cannot end."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    shown = "".join(letter if letter in "\n\t" else printable(letter) for letter in text)
    return [f"{fence}{language}", shown.rstrip("\n"), fence]
