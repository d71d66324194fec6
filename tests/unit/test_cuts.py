"""A cut finds its place by what it is there, and takes the guard away without touching anything else."""

from __future__ import annotations

import pytest

from tests.security.guards.cut import ALWAYS, GONE, NEVER, Cut, Misplaced, TextCut, apply

SOURCE = """\
LIMIT: int = 10
FLAGS = (
    "quiet",  # größer
    f"log={LIMIT}",
)


class Store:
    def read(self, path, mandate):
        mandate.require(path, "too-large")
        if path.size > LIMIT or (path.owner == 0 and not path.plain):
            raise Refused("too-large", "größer als erlaubt", hint="split it")
        elif path.empty:
            return b""
        for folder in reversed(path.parents):
            mandate.require(folder)
        try:
            data = open(path, flags=READ | NO_LINKS, encoding={"mode": 0o600, "kind": None})
        except (OSError, ValueError) as error:
            raise Refused(str(error)) from error
        return data[:min(LIMIT, path.size)] if data else None
"""
CONDITION = "path.size > LIMIT or (path.owner == 0 and not path.plain)"
OPENED = 'open(path, flags=READ | NO_LINKS, encoding={"mode": 0o600, "kind": None})'
RETURNED = "data[:min(LIMIT, path.size)]"
RENAMED = '''\
LIMIT: int = 10
class Store:
    """Moved up."""

    def read(
        self,
        path,
        mandate,
    ):
        for one in reversed(
            path.parents
        ): mandate.require(one)
        if (
            path.size > LIMIT
            or (path.owner == 0
                and not path.plain)
        ): raise Refused("too-large", "another message")
'''


def without(where: str, what: str, new: str, source: str = SOURCE) -> str:
    return apply([Cut("store.py", where, what, new)], source)


@pytest.mark.parametrize(
    ("where", "what", "new", "before", "after"),
    [
        ("Store.read", "if size", NEVER, CONDITION, "False"),
        ("Store.read", "if empty", ALWAYS, "elif path.empty", "elif True"),
        ("Store.read", "if data", NEVER, "if data else", "if False else"),
        ("Store.read", "before Refused", "$0", CONDITION, "(path.size > LIMIT)"),
        ("Store.read", "then empty", "pass", 'return b""', "pass"),
        ("Store.read", "operand owner", ALWAYS, "path.owner == 0", "True"),
        ("Store.read", "operand owner plain", NEVER, "path.owner == 0 and not path.plain", "False"),
        ("Store.read", "call require too-large", GONE, 'mandate.require(path, "too-large")', "None"),
        ("Store.read", "call require #2", GONE, "mandate.require(folder)", "None"),
        ("Store.read", "call reversed", "$1", "reversed(path.parents)", "(path.parents)"),
        ("Store.read", "call min", "$0($2)", "min(LIMIT, path.size)", "(min)((path.size))"),
        ("Store.read", "argument too-large #2", '"fine"', 'Refused("too-large"', 'Refused("fine"'),
        ("Store.read", "argument error", GONE, "str(error)", "str(*())"),
        ("Store.read", "keyword hint", GONE, 'hint="split it"', "**{}"),
        ("Store.read", "keyword flags", "READ", "READ | NO_LINKS", "READ"),
        ("Store.read", "item 0o600", "0o666", "0o600", "0o666"),
        ("Store.read", "item kind", GONE, '"kind": None', "**{}"),
        ("Store.read", "item OSError", GONE, "(OSError,", "(*(),"),
        ("Store.read", "value NO_LINKS", "None", OPENED, "None"),
        ("Store.read", "return min", "$0", f"{RETURNED} if data else None", f"({RETURNED})"),
        ("Store.read", "except OSError", "KeyError", "(OSError, ValueError)", "KeyError"),
        ("Store.read", "for parents", "()", "reversed(path.parents)", "()"),
        ("Store.read", "mention NO_LINKS", "0", "NO_LINKS", "0"),
        ("Store", "if size", NEVER, CONDITION, "False"),
        ("LIMIT", "value", "1000", "10\n", "1000\n"),
        ("FLAGS", "item quiet", GONE, '"quiet"', "*()"),
        ("FLAGS", "item LIMIT", GONE, 'f"log={LIMIT}"', "*()"),
    ],
)  # fmt: skip
def test_a_cut_changes_its_place_and_nothing_else(where: str, what: str, new: str, before: str, after: str) -> None:
    assert SOURCE.count(before) == 1
    assert without(where, what, new) == SOURCE.replace(before, after)


@pytest.mark.parametrize(
    ("what", "before"),
    [
        ("before too-large", "path.size > LIMIT\n            or (path.owner == 0\n                and not path.plain)"),
        ("operand owner plain", "path.owner == 0\n                and not path.plain"),
        ("operand size", "path.size > LIMIT"),
        ("for parents", "reversed(\n            path.parents\n        )"),
    ],
)
def test_a_cut_survives_other_lines_names_and_messages(what: str, before: str) -> None:
    assert RENAMED.count(before) == 1
    assert without("Store.read", what, NEVER, RENAMED) == RENAMED.replace(before, "False")
    assert without("Store.read", what, NEVER) != SOURCE


def test_cuts_are_looked_for_before_any_is_made() -> None:
    cuts = [Cut("store.py", "Store.read", f"call require #{number}", GONE) for number in (1, 2)]
    assert apply(cuts, SOURCE).count("require") == 0
    assert apply([*cuts, TextCut("store.py", "größer\n", "kleiner\n")], SOURCE).count("kleiner") == 1


@pytest.mark.parametrize(
    ("where", "what", "new", "message"),
    [
        ("Store.write", "if size", NEVER, "store.py: Store.write: 0 definitions of write"),
        ("Store.read", "if weight", NEVER, "store.py: Store.read: no `if weight` there"),
        ("Store.read", "call require #3", GONE, "no `call require #3` there"),
        ("Store.read", "call require", GONE, "`call require` is on the lines 10, 16. .* add a word, or #1"),
        ("Store.read", "if size", GONE, "`if size` cannot be removed alone"),
        ("Store.read", "whether size", NEVER, "no `whether size` there"),
    ],
)
def test_a_cut_that_is_misplaced_says_where_and_what_to_do(where: str, what: str, new: str, message: str) -> None:
    with pytest.raises(Misplaced, match=message):
        without(where, what, new)


@pytest.mark.parametrize("text", ["SocketMode=0600", "Mode"])
def test_a_text_stands_there_once(text: str) -> None:
    unit = "[Socket]\nSocketMode=0660\nDirectoryMode=0755\n"
    with pytest.raises(Misplaced, match=r"a\.socket: .* is there [02] times"):
        apply([TextCut("a.socket", text, "")], unit)
    assert apply([TextCut("a.socket", "0660", "0666")], unit) == unit.replace("0660", "0666")
