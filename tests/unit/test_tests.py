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


@pytest.mark.parametrize("name", ["accounts", "house", "inside", "invariants", "legal_events", "outputs", "watch"])
def test_the_judges_of_faults_share_no_code_with_the_product(name: str) -> None:
    nodes = list(ast.walk(ast.parse((TESTS / "faults" / f"{name}.py").read_text())))
    modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    assert {one for one in modules if one.startswith(("hyper2kvmd", "tests.support"))} == set()
