"""A signal ends a migration wherever it arrives: no code in between takes it for a failure of its own work."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import inspect
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import hyper2kvmd
from hyper2kvmd import errors
from hyper2kvmd.cli.oneshot import interruptible
from hyper2kvmd.disk import files
from hyper2kvmd.disk.sources import snapshots
from hyper2kvmd.errors import Failure, Interrupted
from hyper2kvmd.host.mandate import ANYONE

PACKAGE = Path(hyper2kvmd.__file__).parent
TOP_LEVEL = {"cli/ctl.py:_run", "worker.py:_run"}
"""Where a program ends."""
HANDED_ON = {"disk/engine/copy_worker.py:_live"}
"""In a thread, where no signal handler runs; the main thread raises again what it is given."""
NOT_IMPORTED = {"__main__.py", "migrations/env.py"}
"""A program, and what Alembic runs."""


def caught(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.expr | None]]:
    """(function, class or classes) of each `except` that does not raise again, and of each `suppress`."""
    for node in ast.iter_child_nodes(tree):
        inside = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        if isinstance(node, ast.ExceptHandler) and not raises_again(node):
            yield inside, node.type
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "suppress":
            yield from ((inside, each) for each in node.args)
        yield from caught(node, inside)


def raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and (last.exc is None or ast.unparse(last.exc) == handler.name)


def takes_an_interruption(expression: ast.expr | None, module: ModuleType) -> bool:
    if expression is None:
        return True
    if isinstance(expression, ast.Tuple):
        return any(takes_an_interruption(each, module) for each in expression.elts)
    classes = meaning(ast.unparse(expression), module)
    return any(issubclass(Interrupted, each) for each in (classes if isinstance(classes, tuple) else (classes,)))


def meaning(name: str, module: ModuleType) -> Any:
    """Of a dotted name, which a function of the module may import."""
    first, *rest = name.split(".")
    known = {**vars(errors), **vars(builtins), **vars(module)}
    found = known[first] if first in known else imported(first, module)
    return functools.reduce(getattr, rest, found)


def imported(name: str, module: ModuleType) -> Any:
    nodes = ast.walk(ast.parse(inspect.getsource(module)))
    for node in (one for one in nodes if isinstance(one, ast.ImportFrom)):
        for alias in node.names:
            if name == (alias.asname or alias.name):
                return getattr(importlib.import_module(str(node.module)), alias.name)
    return importlib.import_module(name)


def module_of(path: Path) -> ModuleType:
    parts = ("hyper2kvmd", *path.relative_to(PACKAGE).with_suffix("").parts)
    return importlib.import_module(".".join(part for part in parts if part != "__init__"))


def test_only_the_top_level_catches_an_interruption() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}:{function}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not str(path).endswith(tuple(NOT_IMPORTED))
        for function, expression in caught(ast.parse(path.read_text()))
        if takes_an_interruption(expression, module_of(path))
    }
    assert found == TOP_LEVEL | HANDED_ON


@pytest.mark.parametrize(
    ("source", "takes"),
    [
        ("try: pass\nexcept: pass", True),
        ("try: pass\nexcept (OSError, BaseException): pass", True),
        ("try: pass\nexcept Interrupted as one: print(one)", True),
        ("with suppress(OSError, BaseException): pass", True),
        ("with contextlib.suppress(Explained): pass", True),
        ("try: pass\nexcept BaseException: raise", False),
        ("try: pass\nexcept Failure: pass", False),
        ("try: pass\nexcept Exception: pass", False),
        ("with suppress(Failure): pass", False),
    ],
)
def test_what_counts_as_catching_it(source: str, takes: bool) -> None:
    module = importlib.import_module("hyper2kvmd.errors")
    assert any(takes_an_interruption(each, module) for _, each in caught(ast.parse(source))) == takes


def test_an_interruption_is_no_exception() -> None:
    assert not issubclass(Interrupted, Exception | Failure)


def test_a_signal_while_the_files_beside_a_disk_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, it was taken for a file that cannot be read, and all further signals were ignored."""
    disk = tmp_path / "web01.img"
    for path in (disk, tmp_path / "web01-000001.vmdk"):
        path.write_bytes(bytes(512))
    file = files.open_file(disk)

    def interrupted(_path: Path, _mandate: object) -> files.SourceFile:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the handler of the signal raises")

    monkeypatch.setattr(snapshots, "open_file", interrupted)
    with pytest.raises(Interrupted), interruptible():
        snapshots.check_snapshots([file], [], None, ANYONE)
