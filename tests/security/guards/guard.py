"""What a row of the tables is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.security.guards.cut import Cut, TextCut, apply


@dataclass(frozen=True)
class Guard:
    """Cuts that are made together: what overlaps is noticed only when all of it is gone.

    `tests` are tests, or single cases of them, as pytest names them.
    """

    tests: tuple[str, ...]
    cuts: tuple[Cut | TextCut, ...]

    @property
    def name(self) -> str:
        return " + ".join(cut.name for cut in self.cuts)

    @property
    def files(self) -> frozenset[str]:
        return frozenset(cut.file for cut in self.cuts)

    def without(self, file: str, source: str) -> str:
        """`source`, which is the text of `file`, without the guard. Raises Misplaced."""
        return apply((cut for cut in self.cuts if cut.file == file), source)


def each(tests: str | tuple[str, ...], *rows: Cut | TextCut | tuple[Cut | TextCut, ...]) -> Iterator[Guard]:
    """One guard for each row, all of them for the same tests."""
    named = (tests,) if isinstance(tests, str) else tests
    for row in rows:
        yield Guard(tuple(map(_whole, named)), row if isinstance(row, tuple) else (row,))


def cases(test: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{test}[{name}]" for name in names)


def _whole(test: str) -> str:
    return test if test.startswith("tests/") else f"tests/security/{test}"
