"""A page of the manual: prose in Markdown, with marks where entries go that are made from data or from the program."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

MARK = re.compile(r"<!-- ([a-z ]+) -->")
"""A line of the prose: the entries of this name follow."""
REFERENCE = re.compile(r"\b([a-z0-9][a-z0-9.-]*)\(([1-8])\)")
"""A manual page, as `h2kvmctl(1)`."""


@dataclass(frozen=True)
class Term:
    """An entry of a page. Texts are Markdown."""

    kind: Literal["key", "command", "option", "value"]
    name: str
    """What a reader looks for. An option with its hyphens."""
    text: str
    values: str = ""
    """What follows it, as `path | list` or `ID...`."""
    inner: tuple[Term, ...] = ()

    @property
    def last_name(self) -> str:
        """`before` of `hooks.before`."""
        return self.name.rpartition(".")[2] if self.kind == "key" else self.name


@dataclass(frozen=True)
class Group:
    """Entries below a heading of their own; without a title, below the one of the prose."""

    terms: tuple[Term, ...]
    title: str = ""
    text: str = ""


@dataclass(frozen=True)
class ManualPage:
    name: str
    section: int
    summary: str
    prose: str
    """Markdown, whose headings begin with the second level."""
    groups: Mapping[str, tuple[Group, ...]] = field(default_factory=dict)
    """What stands in the place of each mark."""
    synopsis: tuple[str, ...] = ()
    """Command lines, for the mark `synopsis`."""
    other_names: tuple[str, ...] = ()
