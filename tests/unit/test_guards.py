"""The table of `make test-mutations` keeps up with the code and the tests that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.security.guards import GUARDS, Guard

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: f"{guard.file}: {guard.text.strip()[:40]}")
def test_a_guard_stands_where_the_table_says(guard: Guard) -> None:
    assert (CHECKOUT / guard.file).read_text().count(guard.text) == 1
    assert guard.text != guard.without
    for path in guard.paths:
        file, _, name = path.partition("::")
        assert f"\ndef {name}(" in (CHECKOUT / file).read_text(), path


def test_every_attack_has_a_guard() -> None:
    """But for those on others' programs and on the kernel, which no line of ours keeps out."""
    named = {path for guard in GUARDS for path in guard.paths}
    attacks = {
        f"tests/security/{path.name}::{name}"
        for path in (CHECKOUT / "tests/security").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    without = {attack for attack in attacks if attack not in named}
    assert without == set()
