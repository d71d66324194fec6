"""The tables of `make test-mutations` keep up with the code and the tests that they name."""

from __future__ import annotations

import builtins
import re
import symtable
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.guards import GUARDS, OTHERS, Guard
from tests.security.guards.cut import apply

CHECKOUT = Path(__file__).parents[2]


def function(test: str) -> str:
    return test.partition("[")[0]


def tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from tables(child)


def undefined(source: str) -> set[str]:
    """Names that are read in functions, but defined neither there nor in the module."""
    module = symtable.symtable(source, "", "exec")
    known = {*dir(builtins), "__file__"}
    known |= {name.get_name() for name in module.get_symbols() if name.is_assigned() or name.is_imported()}
    read = (name for table in tables(module) for name in table.get_symbols() if name.is_referenced())
    return {name.get_name() for name in read if name.is_global()} - known


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_stands_where_the_table_says(guard: Guard) -> None:
    for test in guard.tests:
        file, _, name = function(test).partition("::")
        assert f"\ndef {name}(" in (CHECKOUT / file).read_text(), test
    for file in guard.files:
        source = (CHECKOUT / file).read_text()
        assert all(apply([cut], source) != source for cut in guard.cuts if cut.file == file)
        if file.endswith(".py"):  # the attack must succeed without the guard, not fail at a name that is gone
            assert undefined(guard.without(file, source)) <= undefined(source)


def test_every_attack_has_a_guard() -> None:
    named = {function(test) for guard in GUARDS for test in guard.tests} | {function(test) for test in OTHERS}
    attacks = {
        f"tests/security/{path.name}::{name}"
        for path in (CHECKOUT / "tests/security").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert attacks - named == set()
