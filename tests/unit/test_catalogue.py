"""The error catalogue says what the program does: every code of it, and no other, each with one kind."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import hyper2kvmd
from hyper2kvmd import catalogue
from hyper2kvmd.catalogue import Explanation
from tests.support.raised_codes import Raised, Untraceable, raised_codes

PACKAGE = Path(hyper2kvmd.__file__).parent
SOURCES = PACKAGE.parent
ENTRIES = catalogue.entries()
REFERENCE = SOURCES / "docs" / "reference" / "errors.md"
CLASSES = "MigrationFailed|InvalidInput|NotFound|AlreadyActive|Unsafe|TryLater|BrokenInstallation|Interrupted|Rejected"
COMMAND = re.compile(r"`h2kvmctl ([a-z]+(?:-[a-z]+)*)")


@pytest.fixture(scope="module")
def raised() -> dict[str, list[Raised]]:
    found = defaultdict(list)
    for one in raised_codes(PACKAGE):
        found[one.code].append(one)
    return dict(found)


def test_codes_are_those_of_the_program(raised: dict[str, list[Raised]]) -> None:
    assert {code: [one.place for one in raised[code]] for code in raised.keys() - ENTRIES.keys()} == {}
    assert ENTRIES.keys() - raised.keys() == set()


def test_a_code_has_one_kind_and_the_catalogue_knows_it(raised: dict[str, list[Raised]]) -> None:
    for code, places in raised.items():
        kinds = {one.effect.kind for one in places} - {None}
        assert kinds == {ENTRIES[code].kind} - {None}, places


def test_a_code_ends_a_command_with_one_exit_status(raised: dict[str, list[Raised]]) -> None:
    several = {
        code: places for code, places in raised.items() if len({one.effect.exit_code for one in places} - {None}) > 1
    }
    assert several == {}


def test_a_code_stands_once() -> None:
    codes = [entry.code for subject in catalogue.read() for entry in subject.entries]
    assert len(codes) == len(set(codes))


def test_every_file_is_a_subject() -> None:
    assert {path.stem for path in (PACKAGE / "catalogue").glob("*.toml")} == set(catalogue.SUBJECTS)


def test_entries_of_a_subject_are_sorted() -> None:
    for subject in catalogue.read():
        assert [entry.code for entry in subject.entries] == sorted(entry.code for entry in subject.entries)


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_an_entry_is_made_of_sentences(entry: Explanation) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry.code)
    assert entry.causes and entry.remedy
    for text in (entry.meaning, *entry.causes, *entry.remedy):
        assert re.fullmatch(r"([A-Z`]|libvirt|hyper2kvmd).*[.]", text), text
        assert text.count("`") % 2 == 0
        assert max(len(sentence.split()) for sentence in re.split(r"`[^`]*`|[.:;] ", text)) <= 35


def test_remedies_use_commands_that_exist() -> None:
    from hyper2kvmd.cli.ctl import COMMANDS

    used = {name for entry in ENTRIES.values() for text in entry.remedy for name in COMMAND.findall(text)}
    assert used <= set(COMMANDS)


def test_the_reference_is_generated() -> None:
    assert REFERENCE.read_text() == catalogue.markdown(), "run: make reference"


def documented() -> Iterator[tuple[str, str]]:
    """Codes that docstrings name after the class of a failure."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for listed in re.findall(rf"(?:{CLASSES})\s\(((?:`[a-z0-9-]+`,?\s*)+)", node.value):
                    yield from ((path.name, code) for code in re.findall("`([a-z0-9-]+)`", listed))


def test_docstrings_name_codes_that_exist() -> None:
    assert {(file, code) for file, code in documented() if code not in ENTRIES} == set()


# ---------------------------------------------------------------- how codes are found


def package_of(folder: Path, source: str) -> Path:
    package = folder / "hyper2kvmd"
    package.mkdir()
    (package / "errors.py").write_text((PACKAGE / "errors.py").read_text())
    (package / "module.py").write_text(f"from hyper2kvmd.errors import Kind, MigrationFailed, TryLater\n{source}")
    return package


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("raise MigrationFailed('a-b', 'fact', hint='h')", {("a-b", "permanent")}),
        ("raise MigrationFailed('a-b', 'fact', hint='h', kind=Kind.RETRY)", {("a-b", "retry")}),
        ("raise TryLater('a-b', 'fact', hint='h')", {("a-b", "retry")}),
        (
            "def fail(fact, code): return TryLater(code, fact, hint='h')\nfail('fact', 'a-b')\nfail('x', code='c')",
            {("a-b", "retry"), ("c", "retry")},
        ),
        (
            "def outer(code='a-b'): return inner(code)\ndef inner(code): return TryLater(code, '', hint='h')",
            {("a-b", "retry")},
        ),
        ("class Own(TryLater): pass\nraise Own('a-b', '', hint='h')", {("a-b", "retry")}),
        (
            "class Own(TryLater):\n    def __init__(self, one): super().__init__('a-b', one, hint='h')\nOwn(1)",
            {("a-b", "retry")},
        ),
        ("class Note:\n    text: str\n    code: str\nNote('x', 'a-b')", {("a-b", None)}),
        ("def again(failure): raise TryLater(failure.code, '', hint='h')", set()),
    ],
)
def test_codes_are_found(source: str, found: set[tuple[str, str | None]], tmp_path: Path) -> None:
    assert {(one.code, one.effect.kind) for one in raised_codes(package_of(tmp_path, source))} == found


def test_exit_statuses_are_found(tmp_path: Path) -> None:
    source = "class Own(TryLater): exit_code = 7\nclass Same(Own): pass\n"
    source += "".join(
        f"{name}('a-b', '', hint='h', kind=Kind.RETRY)\n" for name in ("MigrationFailed", "TryLater", "Same")
    )
    assert {one.effect.exit_code for one in raised_codes(package_of(tmp_path, source))} == {1, 75, 7}


@pytest.mark.parametrize(
    "source",
    [
        "raise MigrationFailed('a' if 1 else 'b', '', hint='h')",
        "raise MigrationFailed('a' + 'b', '', hint='h')",
        "code = 'a'\nraise MigrationFailed(code, '', hint='h')",
        "raise MigrationFailed('a', '', hint='h', kind=Kind.RETRY if 1 else Kind.OPERATOR)",
    ],
)
def test_a_code_that_is_put_together_is_an_error(source: str, tmp_path: Path) -> None:
    with pytest.raises(Untraceable):
        raised_codes(package_of(tmp_path, source))
