"""Hives are edited: random edits are compared with a model, and judged by a strict reader and by python-registry."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from Registry import Registry

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.windows.registry import EditKind, Editor, Hive, RegistryEdit, Value
from tests.support import hives
from tests.support.hive_check import Tree, checked
from tests.support.hives import Data, Node, dword, sz

Model = dict[tuple[str, ...], dict[str, Data]]
"""Keys by the names on the way to them, with their values."""
NAMES = ("a", "B", "bb", "Services", "é", "漢字", "x" * 255)
VALUES = ("", "Start", "ImagePath", "größe", "漢", "v" * 300)
SIZES = (0, 1, 4, 5, 100, 4100, 16344, 16345, 40000)


def path(names: tuple[str, ...]) -> str:
    return "\\".join(names)


def model(tree: Tree, at: tuple[str, ...] = ()) -> Model:
    found: Model = {at: {name: what for name, what in tree.items() if isinstance(what, tuple)}}
    for name, what in tree.items():
        if isinstance(what, dict):
            found |= model(what, (*at, name[:-1]))
    return found


def random_tree(pick: random.Random, kind: bytes, depth: int = 0) -> Node:
    values = {name: (pick.randrange(12), pick.randbytes(pick.choice(SIZES))) for name in VALUES if pick.random() < 0.4}
    names = NAMES if depth < 3 else ()
    keys = {name: random_tree(pick, kind, depth + 1) for name in names if pick.random() < 0.5}
    return Node(values, keys, kind, pick.choice((b"", b"", b"class")))


class Twin:
    """The same edits of a hive and of a model."""

    def __init__(self, data: bytes) -> None:
        self.editor = Editor(Hive.parse(data, name="SYSTEM"))
        self.model = model(checked(data))

    def set(self, names: tuple[str, ...], name: str, data: Data) -> None:
        self.editor.set(path(names), Value(name, *data))
        self.create(names, edit=False)
        self.model[names][name] = data

    def create(self, names: tuple[str, ...], *, edit: bool = True) -> None:
        if edit:
            self.editor.create(path(names))
        for length in range(len(names) + 1):
            self.model.setdefault(names[:length], {})

    def delete_value(self, names: tuple[str, ...], name: str) -> None:
        self.editor.delete_value(path(names), name)
        self.model.get(names, {}).pop(name, None)

    def delete_key(self, names: tuple[str, ...]) -> None:
        if names:
            self.editor.delete_key(path(names))
            self.model = {each: values for each, values in self.model.items() if each[: len(names)] != names}


def differences(before: Model, after: Model) -> set[tuple[str, str, EditKind]]:
    keys = {(path(names), "", EditKind.KEY_DELETED) for names in before if names not in after}
    keys |= {(path(names), "", EditKind.KEY_CREATED) for names in after if names not in before}
    places = {(names, name) for side in (before, after) for names, values in side.items() for name in values}
    changed = (
        (names, name) for names, name in places if before.get(names, {}).get(name) != after.get(names, {}).get(name)
    )
    return keys | {(path(names), name, EditKind.VALUE) for names, name in changed}


def data_of(value: Value | None) -> Data | None:
    return (value.type, value.data) if value else None


def require_true(edits: tuple[RegistryEdit, ...], before: Model, after: Model) -> None:
    assert {(each.path, each.name, each.kind) for each in edits} == differences(before, after)
    for each in edits:
        names = tuple(filter(None, each.path.split("\\")))
        if each.kind == EditKind.VALUE:
            assert data_of(each.before) == before.get(names, {}).get(each.name)
            assert data_of(each.after) == after.get(names, {}).get(each.name)


def judged(data: bytes) -> Model:
    """As python-registry reads it."""

    def read(key: Any, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Data]]]:
        values = {"" if each.name() == "(default)" else each.name(): each for each in key.values()}
        yield at, {name: (each.value_type(), each.raw_data()) for name, each in values.items()}
        for below in key.subkeys():
            yield from read(below, (*at, below.name()))

    return dict(read(Registry.Registry(io.BytesIO(data)).root(), ()))


PATHS = st.lists(st.sampled_from(NAMES), max_size=3).map(tuple)
DATA = st.builds(
    lambda kind, size, byte: (kind, bytes([byte]) * size),
    st.integers(0, 11),
    st.sampled_from(SIZES),
    st.integers(0, 255),
)
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), PATHS, st.sampled_from(VALUES), DATA),
        st.tuples(st.just("create"), PATHS),
        st.tuples(st.just("delete_value"), PATHS, st.sampled_from(VALUES)),
        st.tuples(st.just("delete_key"), PATHS),
    ),
    max_size=40,
)


@settings(max_examples=50)
@given(st.integers(0, 1 << 16), st.sampled_from([b"lh", b"lf", b"li"]), st.sampled_from([3, 5, 6]), EDITS)
def test_random_edits_are_those_of_a_model(seed: int, kind: bytes, minor: int, edits: list[tuple[Any, ...]]) -> None:
    data = hives.hive(random_tree(random.Random(seed), kind), minor=minor)  # noqa: S311
    twin = Twin(data)
    before = {names: dict(values) for names, values in twin.model.items()}
    for edit, *arguments in edits:
        getattr(twin, edit)(*arguments)
    written = twin.editor.bytes()
    assert model(checked(written)) == twin.model
    require_true(twin.editor.changes, before, twin.model)
    assert (written == data) == (before == twin.model)
    assert {names: len(values) for names, values in judged(written).items()} == {
        names: len(values) for names, values in twin.model.items()
    }


def test_python_registry_reads_the_same_values() -> None:
    data = hives.hive({"a": {"x": sz("old")}})
    twin = Twin(data)
    for size in SIZES:
        twin.set(("a", f"b{size}"), "data", (3, bytes(range(256)) * (size // 256) + bytes(size % 256)))
    twin.set(("漢字",), "größe", sz("größer"))
    assert judged(twin.editor.bytes()) == twin.model


@pytest.mark.parametrize(("kind", "minor", "count"), [(b"lh", 5, 1100), (b"lf", 3, 540), (b"li", 3, 540)])
def test_many_subkeys_stay_in_order(kind: bytes, minor: int, count: int) -> None:
    names = [f"key{number:04}" for number in range(count)]
    pick = random.Random(1)  # noqa: S311
    pick.shuffle(names)
    start, new = names[: count // 2], names[count // 2 :]
    twin = Twin(hives.hive(Node({}, {"many": Node({}, {name: Node() for name in start}, kind)}, kind), minor=minor))
    for name in new:
        twin.create(("many", name))
    assert model(checked(twin.editor.bytes())) == twin.model
    pick.shuffle(names)
    for name in names[:-1]:
        twin.delete_key(("many", name))
    assert model(checked(twin.editor.bytes())) == twin.model
    twin.delete_key(("many", names[-1]))
    assert model(checked(twin.editor.bytes())) == twin.model


SMALL = {"Select": {"Current": dword(1)}, "Services": {"disk": {"Start": dword(0), "Group": sz("SCSI")}}}


def editor(**more: Any) -> Editor:
    return Editor(Hive.parse(hives.hive({**SMALL, **more}), name="SYSTEM"))


def test_the_hive_is_left_as_it_was() -> None:
    data = hives.hive(SMALL)
    hive = Hive.parse(data)
    edited = Editor(hive)
    edited.set("Services\\disk", Value.dword("Start", 3))
    disk = hive.find("Services\\disk")
    assert disk is not None and disk.value("Start") == Value.dword("Start", 0)
    assert hive.cells.data == data
    seen = edited.hive.find("Services\\disk")
    assert seen is not None and seen.value("Start") == Value.dword("Start", 3)


def test_what_is_as_it_should_be_is_no_change() -> None:
    one = editor()
    one.set("SERVICES\\DISK", Value.dword("START", 0))
    one.create("select")
    one.delete_value("Select", "missing")
    one.delete_value("missing", "missing")
    one.delete_key("missing")
    one.delete_key("missing\\below")
    assert one.changes == ()
    assert one.bytes() == hives.hive(SMALL)


def test_what_is_changed_back_is_no_change() -> None:
    one = editor()
    one.set("Services\\disk", Value.dword("Start", 3))
    one.set("Services\\disk", Value.dword("Start", 4))
    assert [(each.before, each.after) for each in one.changes] == [(Value.dword("Start", 0), Value.dword("Start", 4))]
    one.set("Services\\disk", Value.dword("Start", 0))
    one.create("new\\below")
    one.delete_key("new")
    one.delete_key("Select")
    one.set("Select", Value.dword("Current", 1))
    assert one.changes == ()
    assert one.bytes() == hives.hive(SMALL)


def test_names_keep_their_case() -> None:
    one = editor()
    one.set("SERVICES\\DISK", Value.dword("START", 3))
    assert one.changes == (
        RegistryEdit("Services\\disk", "Start", Value.dword("Start", 0), Value.dword("Start", 3), EditKind.VALUE),
    )


def test_the_same_edits_give_the_same_bytes() -> None:
    results = []
    for _ in range(2):
        one = editor()
        one.set("new", Value.sz("name", "text"))
        results += [one.bytes(), one.bytes()]
    assert len(set(results)) == 1
    again = Editor(Hive.parse(results[0]))
    again.set("new", Value.sz("name", "text"))
    assert again.bytes() == results[0]


def test_the_result_is_newer_than_the_logs() -> None:
    """Windows ignores logs of a complete hive; and these have lower numbers as well."""
    before, after = hives.hive(SMALL), hives.hive({**SMALL, "logged": {}})
    log = hives.log(before, 8, [hives.entry(8, len(after) - 4096, hives.differing_pages(before, after))])
    one = Editor(Hive.parse(hives.marked(before, 8, 7), [log]))
    assert one.bytes()[4:12] == struct.pack("<II", 8, 8)
    one.set("new", Value.dword("x", 1))
    assert one.bytes()[4:12] == struct.pack("<II", 9, 9)
    assert {"logged\\", "new\\"} <= set(checked(one.bytes()))


def test_what_is_behind_the_bins_is_kept() -> None:
    padded = hives.hive(SMALL) + b"p" * 20000
    one = Editor(Hive.parse(padded))
    assert one.bytes() == padded
    one.set("new", Value.binary("x", b"y" * 5000))
    assert len(one.bytes()) == len(padded)
    assert one.bytes().endswith(b"p" * 1000)
    assert "new\\" in checked(one.bytes())


def test_space_that_was_freed_is_used_again() -> None:
    one = editor()
    for number in range(1000):
        one.set("Services\\disk", Value.binary("data", bytes([number % 256]) * (10 + number % 20)))
    assert len(one.bytes()) <= len(hives.hive(SMALL)) + 4096


def test_a_hive_may_have_lists_with_names_in_any_order_of_characters() -> None:
    """Some characters have no upper case of one character; the result only has to be found again."""
    one, names = editor(), ("straße", "STRASSE", "ǆ", "ﬀ", "\u0131", "\ud800", "𐐨")
    for name in names:
        one.set(name, Value.sz("name", name))
    again = Hive.parse(one.bytes())
    for name in names:
        found = again.find(name)
        assert found is not None and found.value("name") == Value.sz("name", name), name


def test_an_edit_that_another_one_destroyed_is_noticed() -> None:
    """Two values of a damaged hive share their data."""
    data = bytearray(hives.hive({"a": {"one": (3, b"same data"), "two": (3, b"same data")}}))
    first, second = (data.index(name, 4096) - 20 for name in (b"one", b"two"))
    data[second + 8 : second + 12] = data[first + 8 : first + 12]
    one = Editor(Hive.parse(bytes(data)))
    one.set("a", Value.binary("one", b"new data"))
    one.bytes()
    one.set("a", Value.binary("two", b"NEW DATA"))
    with pytest.raises(MigrationFailed) as caught:
        one.bytes()
    assert caught.value.code == "registry-damaged"


INVALID = {
    "a long key": lambda one: one.create("x" * 256),
    "a long value": lambda one: one.set("Select", Value.dword("x" * 16384, 1)),
    "large data": lambda one: one.set("Select", Value.binary("x", bytes((16 << 20) + 1))),
    "the root": lambda one: one.delete_key(""),
}


@pytest.mark.parametrize("name", INVALID)
def test_what_a_hive_cannot_hold_is_refused(name: str) -> None:
    one = editor()
    with pytest.raises(MigrationFailed) as caught:
        INVALID[name](one)
    assert caught.value.code == "registry-edit-invalid"
    assert caught.value.message.startswith("registry hive SYSTEM: ")
    assert one.changes == ()


def test_a_key_is_not_created_too_deep() -> None:
    one = editor()
    one.create("\\".join("k" * 512))
    with pytest.raises(MigrationFailed):
        one.create("\\".join("k" * 513))
