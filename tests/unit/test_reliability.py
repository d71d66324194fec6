"""The promises of docs/explanation/reliability.md: each one names the tests that show it, and these exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.doc_blocks import REPOSITORY

PAGE = REPOSITORY / "docs" / "explanation" / "reliability.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
HEADINGS = ("| promise |", "|---")


def rows(text: str) -> list[list[str]]:
    """The cells of each promise."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith(HEADINGS)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def missing(text: str) -> Iterator[str]:
    """Tests that the text names and the repository lacks."""
    for file, test in TEST.findall(text):
        path = REPOSITORY / file
        tops = ast.parse(path.read_text()).body if path.is_file() else []
        functions = {node.name for node in tops if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        targets = [target for node in tops if isinstance(node, ast.Assign) for target in node.targets]
        assigned = {target.id for target in targets if isinstance(target, ast.Name)}
        if test not in functions | assigned:  # the case of a state machine is assigned
            yield f"{file}::{test}"


@pytest.mark.parametrize("row", rows(PAGE.read_text()), ids=lambda row: row[0])
def test_each_promise_names_its_tests(row: list[str]) -> None:
    promise, how, shown_by = row
    assert promise.endswith(".") and how.endswith("."), "sentences"
    named = TEST.findall(shown_by)
    assert named and TEST.sub("", shown_by).strip(", ") == "", "tests, separated by commas"


def test_the_tests_exist() -> None:
    assert list(missing(PAGE.read_text())) == []


def test_a_missing_test_is_found() -> None:
    text = (
        "`tests/unit/test_reliability.py::rows` `tests/unit/test_reliability.py::lines` `tests/unit/test_no.py::rows`"
    )
    assert list(missing(text)) == ["tests/unit/test_reliability.py::lines", "tests/unit/test_no.py::rows"]
