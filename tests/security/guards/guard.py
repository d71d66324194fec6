"""What a row of the tables is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Cut:
    """`text` stands in `file` once, and guards; `without` does not."""

    file: str
    text: str
    without: str


@dataclass(frozen=True)
class Guard:
    """Cuts that are made together: what overlaps is noticed only when all of it is gone.

    `tests` are tests, or single cases of them, as pytest names them.
    """

    tests: tuple[str, ...]
    cuts: tuple[Cut, ...]

    @property
    def name(self) -> str:
        return " + ".join(f"{cut.file}: {cut.text.strip().splitlines()[0][:60]}" for cut in self.cuts)


def each(tests: str | tuple[str, ...], *rows: Cut | tuple[Cut, ...]) -> Iterator[Guard]:
    """One guard for each row, all of them for the same tests."""
    named = (tests,) if isinstance(tests, str) else tests
    for row in rows:
        yield Guard(tuple(map(_whole, named)), (row,) if isinstance(row, Cut) else row)


def cases(test: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{test}[{name}]" for name in names)


def _whole(test: str) -> str:
    return test if test.startswith("tests/") else f"tests/security/{test}"
