"""Runs regular expressions on texts that make a careless one slow, each within a limit of CPU time.

`python -m tests.support.slow_patterns [PATTERN]` takes the patterns of the packages that read guests, or the given one.
It prints a pattern before it tries it, so the last line names the one that exceeded the limit (SIGXCPU).
"""

from __future__ import annotations

import ast
import functools
import importlib
import math
import pkgutil
import re
import resource
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

PACKAGES = ("hyper2kvmd.guest", "hyper2kvmd.proof")
TEXT_SIZE = 64 << 10
CPU_SECONDS = 3
"""For all texts of one pattern. They need a tenth of it on a slow host; a quadratic search needs ten times as much."""
METHODS = ("search", "match", "fullmatch")
BLANKS = ("\n", " ", "\t", "\\", "a", "A", "1", "-", "a-", '"', "'", "=", "[", "{", "a=", " a", "x ", ",")
HEADS, WORDS = 5, 12


@dataclass(frozen=True)
class Use:
    """A pattern, and the methods of it that are called."""

    pattern: re.Pattern[Any]
    methods: frozenset[str]


def uses() -> Iterator[Use]:
    """Compiled patterns of the modules, also those in their tuples and dictionaries, and literals in calls of `re`."""
    for module_name in _modules():
        module = importlib.import_module(module_name)
        for name, value in vars(module).items():
            for pattern in _patterns_in(value):
                yield Use(pattern, _methods(module_name, name))
        yield from _literals(_sources()[module_name])


def _modules() -> Iterator[str]:
    for package in PACKAGES:
        yield from (
            found.name for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        )


def _patterns_in(value: object) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, (tuple, list, frozenset)):
        for item in value:
            yield from _patterns_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _patterns_in(item)
    elif isinstance(pattern := getattr(value, "pattern", None), str):
        yield re.compile(pattern, re.MULTILINE)


def _literals(source: str) -> Iterator[Use]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=method), args=[ast.Constant(str(text)), *_]):
                if method != "compile":
                    yield Use(re.compile(text, re.MULTILINE), frozenset({method}))


def _methods(module: str, name: str) -> frozenset[str]:
    """Those that its own module calls, or another on an attribute of it. All if there is no call by its name."""
    method = r"\.(search|finditer|findall|subn?|split|match|fullmatch)\("
    found = re.findall(rf"(?<![\w.]){name}{method}", _sources()[module])
    qualified = re.compile(rf"\b{module.rpartition('.')[2]}\.{name}{method}")
    found += [called for source in _sources().values() for called in qualified.findall(source)]
    return frozenset(found or METHODS)


@functools.cache
def _sources() -> dict[str, str]:
    return {name: Path(importlib.import_module(name).__file__ or "").read_text() for name in _modules()}


def texts(pattern: str) -> Iterator[str]:
    """Repetitions of the words that the pattern names, and of blanks and other characters, behind those words."""
    plain = re.sub(r"\\[a-zA-Z]|\(\?<?[=!:]|\(\?P?", " ", pattern).replace("\\", "")
    words = list(dict.fromkeys(re.findall(r"[\[{]?[A-Za-z/][\w./-]+[=:]?\"?", plain)))[:WORDS]
    heads = dict.fromkeys(["", "A=", *(f"{word} " for word in words), "".join(words), " ".join(words) + " "])
    for head in (*list(heads)[:HEADS], *list(heads)[HEADS:][-2:]):
        for pump in (*words, *(f"{word} " for word in words), *BLANKS):
            yield _filled(head, pump, TEXT_SIZE)
    for first, second in pairwise(words):
        yield _filled("", first, TEXT_SIZE // 2) + _filled("", second, TEXT_SIZE // 2)
        yield _filled("", f"{first} ", TEXT_SIZE // 2) + _filled("", f"{second} ", TEXT_SIZE // 2)


def _filled(head: str, pump: str, size: int) -> str:
    return f"{head}{pump * (size // len(pump))}\x01z\n"


def try_all(use: Use) -> None:
    pattern: re.Pattern[Any] = use.pattern
    is_text = isinstance(pattern.pattern, str)
    for text in texts(pattern.pattern if is_text else pattern.pattern.decode("latin-1")):
        subject = text if is_text else text.encode("latin-1")
        if "match" in use.methods:
            pattern.match(subject)
        if "fullmatch" in use.methods:
            pattern.fullmatch(subject)
        if use.methods - {"match", "fullmatch"}:
            deque(pattern.finditer(subject), maxlen=0)


def _limit_cpu() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = math.ceil(used.ru_utime + used.ru_stime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked = [Use(re.compile(text, re.MULTILINE), frozenset(METHODS)) for text in sys.argv[1:]]
    for use in dict.fromkeys(asked or uses()):
        print(use.pattern.pattern, *use.methods, flush=True)
        _limit_cpu()
        try_all(use)
    print("all are fast")


if __name__ == "__main__":
    main()
