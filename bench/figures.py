"""Figures with their limits, as a table of docs/explanation/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.measure import ROOT
from bench.table import host

DOCUMENT = ROOT / "docs" / "explanation" / "performance.md"


@dataclass(frozen=True)
class Figure:
    """What was measured, in the unit that the table shows."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def met(self) -> bool:
        return self.value < self.limit


def publish(figures: Sequence[Figure], mark: str, command: str, said: str, *, markdown: bool) -> int:
    """Print the table, put it between the marks of the document if wanted, and return the exit code."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    lines = [begin, "", f"    {command}", "", f"{host()}. {said}".rstrip(), ""]
    lines += ["| what | measured | at most | met |", "|---|---|---|---|"]
    for one in figures:
        met = "yes" if one.met else "**no**"
        lines.append(f"| {one.name} | {_shown(one.value, one.unit)} | {_shown(one.limit, one.unit)} | {met} |")
    table = "\n".join([*lines, "", end])
    print(table)
    if markdown:
        text = DOCUMENT.read_text()
        DOCUMENT.write_text(text.split(begin)[0] + table + text.split(end)[1])
    return 0 if all(one.met for one in figures) else 1


def _shown(value: float, unit: str) -> str:
    digits = 0 if value >= 10 else 1 if value >= 1 or value == 0 else 2
    return f"{value:,.{digits}f} {unit}".replace(".0 ", " ")
