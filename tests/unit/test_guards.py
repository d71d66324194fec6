"""The tables of `make test-mutations` keep up with the code and the tests that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.security.guards import GUARDS, OTHERS, Guard

CHECKOUT = Path(__file__).parents[2]


def function(test: str) -> str:
    return test.partition("[")[0]


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_stands_where_the_table_says(guard: Guard) -> None:
    for cut in guard.cuts:
        assert (CHECKOUT / cut.file).read_text().count(cut.text) == 1, cut
        assert cut.text != cut.without
    for test in guard.tests:
        file, _, name = function(test).partition("::")
        assert f"\ndef {name}(" in (CHECKOUT / file).read_text(), test


def test_every_attack_has_a_guard() -> None:
    named = {function(test) for guard in GUARDS for test in guard.tests} | {function(test) for test in OTHERS}
    attacks = {
        f"tests/security/{path.name}::{name}"
        for path in (CHECKOUT / "tests/security").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert attacks - named == set()
