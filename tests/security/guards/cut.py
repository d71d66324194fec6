"""Where a guard stands in the source, and what stands there without it.

A place is named by what it is in the syntax tree, so that other formatting, messages, lines and local names do not
matter.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache

NEVER, ALWAYS, GONE = "False", "True", ""

Nodes = tuple[ast.expr | ast.stmt | ast.keyword, ...]
Span = tuple[tuple[int, int], tuple[int, int]]
Edit = tuple[int, int, bytes]
"""The bytes from here to there, and what comes in their place."""


class Misplaced(Exception):
    """A cut names no place in its file, or several."""


@dataclass(frozen=True)
class Cut:
    """In `file`, in the function, class or assignment `where`, the place `what` reads `without`.

    `what` is a kind of place (see `_places`), words that occur there (names, whole strings, numbers), and `#2` for the
    second of several. Of places inside each other, the innermost counts. In `without`, $0, $1 … are the expressions in
    the place, from left to right: in a call, $0 is the function and $1 the first argument.
    """

    file: str
    where: str
    what: str
    without: str

    @property
    def name(self) -> str:
        return f"{self.file}: {self.where}: {self.what} -> {self.without or 'gone'}"

    def edit(self, source: str) -> Edit:
        """What to change in `source`. Raises Misplaced."""
        data, place = source.encode(), self._find(source)
        starts = [0]
        for line in data.split(b"\n"):
            starts.append(starts[-1] + len(line) + 1)

        def limits(nodes: Nodes) -> tuple[int, int]:
            (line, column), (end_line, end_column) = _span(nodes)
            return starts[line - 1] + column, starts[end_line - 1] + end_column

        if self.without != GONE:
            parts = [f"({data[slice(*limits((part,)))].decode()})" for part in _parts(place.replaced)]
            new = re.sub(r"\$(\d)", lambda match: parts[int(match[1])], self.without)
            return *limits(place.replaced), new.encode()
        if not place.gap:
            raise self._misplaced(f"`{self.what}` cannot be removed alone", "write what stands there without the guard")
        return *limits(place.removed), place.gap.encode()

    def _find(self, source: str) -> _Place:
        kind, *words = self.what.split()
        number = int(words.pop().removeprefix("#")) if words and re.fullmatch(r"#\d+", words[-1]) else None
        wanted = {_word(word) for word in words}
        scope = self._scope(_parsed(source))
        matching = [place for place in _places(kind, scope) if wanted <= _words(place.seen)]
        spans = {_span(place.seen): place for place in matching}
        found = [spans[span] for span in sorted(spans) if not any(_within(other, span) for other in spans)]
        if number is not None:
            found = found[number - 1 : number]
        if not found:
            raise self._misplaced(f"no `{self.what}` there", "name the place where the guard stands now")
        if len(found) > 1:
            lines = ", ".join(str(_span(place.seen)[0][0]) for place in found)
            raise self._misplaced(f"`{self.what}` is on the lines {lines}", "add a word, or #1 for the first of them")
        return found[0]

    def _scope(self, tree: ast.AST) -> ast.AST:
        scope = tree
        for name in self.where.split("."):
            found = [node for node in getattr(scope, "body", []) if name in _defined(node)]
            if len(found) != 1:
                raise self._misplaced(f"{len(found)} definitions of {name}", "name the one that holds the guard now")
            scope = found[0]
        return scope

    def _misplaced(self, fact: str, remedy: str) -> Misplaced:
        return Misplaced(f"{self.file}: {self.where}: {fact}. To correct the table of guards, {remedy}.")


@dataclass(frozen=True)
class TextCut:
    """In `file`, which is not Python, or in a comment, `text` stands once and reads `without`."""

    file: str
    text: str
    without: str

    @property
    def name(self) -> str:
        return f"{self.file}: {self.text.strip()}"

    def edit(self, source: str) -> Edit:
        """What to change in `source`. Raises Misplaced."""
        if (count := source.count(self.text)) != 1:
            fact = f"{self.text!r} is there {count} times"
            raise Misplaced(f"{self.file}: {fact}. To correct the table of guards, name a text that is there once.")
        begin = len(source[: source.index(self.text)].encode())
        return begin, begin + len(self.text.encode()), self.without.encode()


def apply(cuts: Iterable[Cut | TextCut], source: str) -> str:
    """`source` after all cuts, each of which is looked for in the whole `source`. Raises Misplaced."""
    data = source.encode()
    for begin, end, new in sorted((cut.edit(source) for cut in cuts), reverse=True):
        data = data[:begin] + new + data[end:]
    return data.decode()


@dataclass(frozen=True)
class _Place:
    """Words are looked for in `seen`. When the place is GONE, `gap` stands where `removed` was."""

    replaced: Nodes
    seen: Nodes
    removed: Nodes = field(default=())
    gap: str = ""


@cache
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


def _places(kind: str, scope: ast.AST) -> Iterator[_Place]:
    for node in ast.walk(scope):
        match kind, node:
            case "if", ast.If(test=test) | ast.IfExp(test=test):  # the condition, by its own words
                yield _Place((test,), (test,))
            case "before", ast.If(test=test, body=body):  # the condition, by what happens if it holds
                yield _Place((test,), tuple(body))
            case "then", ast.If(test=test, body=body):  # what happens if it holds, by the condition
                yield _Place(tuple(body), (test,))
            case "operand", ast.BoolOp(values=values):  # of `and`, `or`
                yield from (_Place((value,), (value,)) for value in values)
            case "call", ast.Call():
                yield _Place((node,), (node,), (node,), "None")
            case "argument", ast.Call(args=args):  # one without a keyword
                yield from (_Place((arg,), (arg,), (arg,), "*()") for arg in args)
            case "keyword", ast.keyword(value=value):  # the value of a keyword argument
                yield _Place((value,), (node,), (node,), "**{}")
            case "item", ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
                yield from (_Place((item,), (item,), (item,), "*()") for item in items)
            case "item", ast.Dict(keys=keys, values=values):
                pairs = [(key, value) for key, value in zip(keys, values, strict=True) if key is not None]
                yield from (_Place((value,), (key, value), (key, value), "**{}") for key, value in pairs)
            case "value", ast.Assign() | ast.AnnAssign() | ast.AugAssign() if node.value:  # what is assigned
                yield _Place((node.value,), (node,))
            case "return", ast.Return(value=ast.expr() as value):  # what is returned
                yield _Place((value,), (value,))
            case "except", ast.ExceptHandler(type=ast.expr() as caught):  # what is caught
                yield _Place((caught,), (caught,))
            case "for", ast.For(iter=iterable):  # what a loop goes over
                yield _Place((iterable,), (iterable,))
            case "mention", ast.Name() | ast.Attribute() | ast.Constant():  # the name, string or number itself
                yield _Place((node,), (node,))


def _defined(node: ast.AST) -> set[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def _words(nodes: Nodes) -> set[str | int]:
    found = set[str | int]()
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.keyword(arg=str(word)):
                found.add(word)
            case ast.Constant(value=value):
                found.add(value if type(value) is int else str(value))
    return found


def _word(text: str) -> str | int:
    try:
        return int(text, 0)
    except ValueError:
        return text


def _parts(nodes: Nodes) -> list[ast.expr]:
    inner = (child for node in nodes for child in ast.iter_child_nodes(node))
    return sorted((child for child in inner if isinstance(child, ast.expr)), key=lambda part: _span((part,)))


def _span(nodes: Nodes) -> Span:
    """Lines from 1 on; columns from 0 on, in bytes of UTF-8."""
    first, last = nodes[0], nodes[-1]
    assert last.end_lineno is not None and last.end_col_offset is not None
    return (first.lineno, first.col_offset), (last.end_lineno, last.end_col_offset)


def _within(inner: Span, outer: Span) -> bool:
    return inner != outer and outer[0] <= inner[0] and inner[1] <= outer[1]
