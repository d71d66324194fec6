"""The texts in the sources of the program."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import hyper2kvmd

PACKAGE = Path(hyper2kvmd.__file__).parent
FILLED_IN = "\N{REPLACEMENT CHARACTER}"
"""Stands for a value in a text."""


def texts(node: ast.expr) -> Iterator[str]:
    """The literal texts that an expression may become."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else FILLED_IN for part in parts)
        case ast.IfExp(body=one, orelse=other):
            yield from (*texts(one), *texts(other))
        case ast.BoolOp(values=values):
            for value in values:
                yield from texts(value)
        case ast.Dict(values=values):
            for value in values:
                yield from texts(value)
