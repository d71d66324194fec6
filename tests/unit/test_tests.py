"""How the tests themselves are built."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_nothing_is_imported_out_of_a_file_of_tests(path: Path) -> None:
    """What two files need lies in tests/support."""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    assert [node.module for node in found if node.module and node.module.rpartition(".")[2].startswith("test_")] == []
