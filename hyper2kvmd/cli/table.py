"""Lays out a table for a terminal of any width, one line a row, or for a file, with every column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

GAP = 2
NOTHING = "-"
"""An empty cell where there is no terminal: programs count columns."""
CUT = "\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True)
class Column:
    heading: str
    rank: int
    """On a narrow terminal, columns with a low rank are left out first."""
    narrowest: int | None = None
    """Its cells may be cut to this width; None: they stay whole."""


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    style: str = ""


Line = tuple[Cell, ...]


def laid_out(columns: Sequence[Column], rows: Sequence[Line], width: int | None) -> list[Line]:
    """The lines of the table, headings first. `width` is that of the terminal, None if there is none.

    A terminal shows no column that is empty in all rows.
    """
    if width is None:
        return list(in_parts(columns, [rows]))
    headings = _headings(columns)
    chosen = _fitting(columns, rows, width)
    kept = [columns[number] for number in chosen]
    lines = [tuple(row[number] for number in chosen) for row in (headings, *rows)]
    return _padded(lines, _shrunk(kept, _widths(kept, lines[1:]), width))


def in_parts(columns: Sequence[Column], parts: Iterable[Sequence[Line]]) -> Iterator[Line]:
    """The same without a terminal, part by part, so that the rows need not fit into memory.

    A column gets wider with the first part that needs it.
    """
    widths = [0] * len(columns)
    lines = [_headings(columns)]
    for rows in parts:
        filled = [tuple(Cell(cell.text or NOTHING) for cell in row) for row in rows]
        widths = list(map(max, widths, _widths(columns, filled)))
        yield from _padded([*lines, *filled], widths)
        lines = []


def _headings(columns: Sequence[Column]) -> Line:
    return tuple(Cell(column.heading, "bold") for column in columns)


def _widths(columns: Sequence[Column], rows: Sequence[Line]) -> list[int]:
    cells = [[column.heading, *(row[number].text for row in rows)] for number, column in enumerate(columns)]
    return [max(map(cell_len, column)) for column in cells]


def _fitting(columns: Sequence[Column], rows: Sequence[Line], width: int) -> list[int]:
    """The numbers of the columns that a terminal of this width can show."""
    chosen = [number for number in range(len(columns)) if any(row[number].text for row in rows)]
    natural = _widths(columns, rows)
    least = [_least(column, natural[number]) for number, column in enumerate(columns)]
    while len(chosen) > 1 and sum(least[number] + GAP for number in chosen) - GAP > width:
        chosen.remove(min(chosen, key=lambda number: columns[number].rank))
    return chosen


def _least(column: Column, natural: int) -> int:
    return natural if column.narrowest is None else min(natural, max(column.narrowest, cell_len(column.heading)))


def _shrunk(columns: Sequence[Column], natural: list[int], width: int) -> list[int]:
    """The widths of the columns, the last ones cut first."""
    widths, excess = list(natural), sum(natural) + GAP * (len(natural) - 1) - width
    for number in reversed(range(len(columns))):
        cut = min(max(0, excess), natural[number] - _least(columns[number], natural[number]))
        widths[number] -= cut
        excess -= cut
    return widths


def _padded(lines: Sequence[Line], widths: Sequence[int]) -> list[Line]:
    """Each cell but the last one of a line filled with blanks up to the next column."""
    last = len(widths) - 1
    return [
        tuple(
            Cell(_fit(cell.text, widths[number], 0 if number == last else GAP), cell.style)
            for number, cell in enumerate(line)
        )
        for line in lines
    ]


def _fit(text: str, width: int, gap: int) -> str:
    if cell_len(text) > width:
        while cell_len(text) >= width:
            text = text[:-1]
        text += CUT
    return text + " " * (width - cell_len(text) + gap) if gap else text
