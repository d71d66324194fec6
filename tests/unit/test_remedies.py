"""Remedies are sentences: every one that the program can print."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

import pytest

from hyper2kvmd import config, spec
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.choice import FAMILIES, WITHOUT_SYSTEM
from hyper2kvmd.proof import console
from hyper2kvmd.yaml_binding import Rules
from tests.support.program_texts import FILLED_IN, PACKAGE, texts

LONGEST = 35
"""Words."""
NAMES = ("hint", "remedy", "remedies")


def positions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Functions and classes with a parameter for the remedy, and its number in a call."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name, body=body):
                for function in body:
                    if isinstance(function, ast.FunctionDef):
                        yield from numbered(name if function.name == "__init__" else function.name, function, skip=1)
            case ast.FunctionDef(name=name):
                yield from numbered(name, node, skip=0)


def numbered(name: str, function: ast.FunctionDef, *, skip: int) -> Iterator[tuple[str, int]]:
    arguments = [one.arg for one in function.args.args]
    if "hint" in arguments and (arguments[0] == "self") == bool(skip):
        yield name, arguments.index("hint") - skip


def remedies(source: str, numbers: dict[str, set[int]]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        found: list[ast.expr] = []
        match node:
            case ast.keyword(arg="hint", value=value):
                found.append(value)
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in NAMES:
                found.append(value)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=arguments):
                found += [arguments[number] for number in numbers.get(name, ()) if number < len(arguments)]
        for expression in found:
            yield from ((expression.lineno, text) for text in texts(expression))


def faults(text: str) -> list[str]:
    found = []
    if not text[:1].isupper():
        found.append("does not begin with a capital letter")
    if text.endswith((".", ":", " ")):
        found.append("ends with punctuation")
    if len(text.split()) > LONGEST:
        found.append(f"has more than {LONGEST} words")
    return found


def concerns_without_remedy(source: str) -> list[int]:
    """Lines of concerns whose remedy is missing or empty."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id="Concern"), keywords=keywords):
                hints = [text for one in keywords if one.arg == "hint" for text in texts(one.value)]
                named = [one for one in keywords if one.arg == "hint" and not isinstance(one.value, ast.Constant)]
                found += [] if (hints or named) and all(hints) else [node.lineno]
    return found


def test_every_concern_has_a_remedy() -> None:
    sources = sorted(PACKAGE.rglob("*.py"))
    assert [(path.name, lines) for path in sources if (lines := concerns_without_remedy(path.read_text()))] == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("Concern(code='a-b', message='c')", 1),
        ("Concern(code='a-b', message='c', hint='')", 1),
        ("Concern(code='a-b', message='c', hint='Do it' if x else '')", 1),
        ("Concern(code='a-b', message='c', hint='Do it')", 0),
        ("Concern(code='a-b', message='c', hint=remedy)", 0),
    ],
)
def test_concerns_without_remedy_are_found(source: str, count: int) -> None:
    assert len(concerns_without_remedy(source)) == count


def read_package() -> Iterator[tuple[str, str]]:
    sources = {path: path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
    numbers: dict[str, set[int]] = defaultdict(set)
    for source in sources.values():
        for name, number in positions(ast.parse(source)):
            numbers[name].add(number)
    for path, source in sources.items():
        for line, text in remedies(source, numbers):
            yield f"{path.relative_to(PACKAGE)}:{line}", text


def test_remedies_in_the_code_are_sentences() -> None:
    found = list(read_package())
    assert len(found) > 200
    assert [(place, text, wrong) for place, text in found if (wrong := faults(text))] == []


@pytest.mark.parametrize("rules", [spec.RULES, config.RULES], ids=["migration", "configuration"])
def test_remedies_for_keys_are_sentences(rules: Rules) -> None:
    listed = [*rules.remedies.values(), rules.absolute_because, rules.no_home_because]
    assert [(text, wrong) for text in listed if (wrong := faults(text))] == []


def test_remedies_for_a_failed_boot_are_sentences() -> None:
    assert [(sign.hint, wrong) for sign in console.SIGNS if (wrong := faults(sign.hint))] == []
    hints = [family.unproven_hint for family in (*FAMILIES, WITHOUT_SYSTEM)]
    assert [(hint, wrong) for hint in hints if (wrong := faults(hint))] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("fail('a', hint='one')", ["one"]),
        ("fail('a', hint=f'one {two}')", [f"one {FILLED_IN}"]),
        ("hint = 'one' if x else 'two'", ["one", "two"]),
        ("def own(fact, hint): ...\nown('a', 'one')", ["one"]),
        ("class Own:\n    def own(self, fact, hint): ...\n    def by(self): self.own('a', 'one')", ["one"]),
        ("class Own:\n    def __init__(self, fact, hint): ...\nOwn('a', 'one')", ["one"]),
        ("hint = maybe or 'one'", ["one"]),
        ("remedies = {2: 'one'}", ["one"]),
    ],
)
def test_remedies_are_found(source: str, found: list[str]) -> None:
    numbers: dict[str, set[int]] = defaultdict(set)
    for name, number in positions(ast.parse(source)):
        numbers[name].add(number)
    assert [text for _, text in remedies(source, numbers)] == found


@pytest.mark.parametrize("text", ["run it", "`run` it", "", "Run it.", "Run it: ", "Run " + "it " * LONGEST + "now"])
def test_texts_that_are_no_sentences_are_found(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize(
    ("message", "hint", "shown"),
    [
        ("/d/a.vmdk: not a VMDK", "Export it again", "/d/a.vmdk: not a VMDK. Export it again. [x-y]"),
        (
            "the key vn_name is not known",
            "Did you mean vm_name?",
            "the key vn_name is not known. Did you mean vm_name? [x-y]",
        ),
        ("sudo failed: try again.", "Read its output", "sudo failed: try again. Read its output. [x-y]"),
        ("the tool said nothing:", "Read its log", "the tool said nothing. Read its log. [x-y]"),
        ("vm_name is aaa...", "Shorten it. Use letters", "vm_name is aaa... Shorten it. Use letters. [x-y]"),
    ],
)
def test_an_error_reads_as_sentences(message: str, hint: str, shown: str) -> None:
    assert str(MigrationFailed("x-y", message, hint=hint)) == shown
