"""The strict loader: what is refused, where, and that no text at all can make it do anything else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyper2kvmd import yaml_source
from hyper2kvmd.errors import InvalidInput


def faults(text: str) -> list[tuple[str, int | None, int | None]]:
    return [(one.code, one.line, one.column) for one in yaml_source.read(text).problems]


def test_places_are_those_of_the_text() -> None:
    root = yaml_source.read("# a comment\nvmdk: /a\nretry:\n  max-attempts: 3\n").root
    assert root is not None
    vmdk, retry = root.entries
    assert (vmdk.place, retry.place) == (yaml_source.Position(2, 1), yaml_source.Position(3, 1))
    assert isinstance(vmdk.value, yaml_source.Scalar)
    assert vmdk.value.place == yaml_source.Position(2, 7)
    assert isinstance(retry.value, yaml_source.Mapping)
    assert retry.value.entries[0].key == "max_attempts"
    assert retry.value.entries[0].written == "max-attempts"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x 1\nb: *x\n", [("yaml-refused", 1, 4), ("yaml-refused", 2, 4)]),
        ("a: !!bool yes\n", [("yaml-refused", 1, 4)]),
        ("a: !!python/object/apply:os.system [id]\n", [("yaml-refused", 1, 4)]),
        ("<<: {a: 1}\n", [("yaml-refused", 1, 1)]),
        ("a: 1\nb: 2\na: 3\n", [("key-duplicate", 3, 1)]),
        ("m: {a-b: 1, a-b: 2}\n", [("key-duplicate", 1, 13)]),
        ("a: 1\n---\nb: 2\n", [("yaml-refused", 2, 1)]),
        ("- a\n", [("yaml-refused", 1, 1)]),
        ("just words\n", [("yaml-refused", 1, 1)]),
        ("a: b\nc: [d\n", [("yaml-syntax", 3, 1)]),
        ("a: 1\nb\0: 2\n", [("yaml-syntax", 2, 2)]),
        ("a: 1\nb\x85c: 2\n", [("yaml-syntax", 2, 2)]),
        ('a: "b\\x1bc"\n', [("yaml-refused", 1, 4)]),
        ("a: |\n  b\n  c\n", [("yaml-refused", 1, 4)]),
        ("? [a]\n: b\n", [("yaml-refused", 1, 3)]),
        ("[" * 60_000, [("yaml-refused", 1, 10)]),
        ("a" * 70_000, [("yaml-too-large", None, None)]),
        ("ä" * 40_000, [("yaml-too-large", None, None)]),
        ("\ud800: 1\n", [("yaml-syntax", 1, 1)]),
    ],
)
def test_refused_with_place(text: str, expected: list[tuple[str, int | None, int | None]]) -> None:
    assert faults(text) == expected


def test_every_structural_error_is_listed_at_once() -> None:
    text = "a: &x 1\na: 2\nb: !t 3\n<<: {c: 1}\nd: *x\n"
    assert [line for _, line, _ in faults(text)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff", "~\n"[1:]])
def test_nothing_is_an_empty_mapping(text: str) -> None:
    document = yaml_source.read(text)
    assert document.problems == ()
    assert document.root is not None
    assert document.root.entries == ()


def test_billion_laughs_expand_nothing() -> None:
    levels = ["a0: &a0 {x: lol}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 60)]
    document = yaml_source.read("\n".join(levels))
    assert document.root is not None
    assert len(document.root.entries) == 60
    assert {one.code for one in document.problems} == {"yaml-refused"}


def test_keys_and_values_are_counted() -> None:
    text = "\n".join(f"k{number}: v" for number in range(yaml_source.MAX_NODES))
    assert yaml_source.read(text).root is None


yamlish = st.text(alphabet=st.sampled_from(list("ab01 \n\t:-?[]{},&*!|>'\"%@#~<\\\x00\x85\u2028é\ufeff")), max_size=80)


@settings(max_examples=400)
@given(st.one_of(yamlish, st.text(max_size=60), st.text(alphabet=st.characters(), max_size=40)))
def test_any_text_gives_a_tree_or_problems(text: str) -> None:
    document = yaml_source.read(text)
    assert document.root is not None or document.problems
    assert all("\n" not in one.message and one.message.isprintable() for one in document.problems)


def test_files_that_are_not_text(tmp_path: Path) -> None:
    binary, big, pipe = tmp_path / "b", tmp_path / "c", tmp_path / "p"
    binary.write_bytes(b"a: \xff\n")
    big.write_bytes(b"#" * (yaml_source.MAX_BYTES + 1))
    os.mkfifo(pipe)
    found = {}
    for path in (binary, big, pipe, tmp_path, tmp_path / "missing"):
        with pytest.raises(InvalidInput) as caught:
            yaml_source.read_file(path)
        found[path.name] = caught.value.code
        assert str(path) in caught.value.message
    assert found == {
        "b": "file-not-text",
        "c": "file-too-large",
        "p": "file-unreadable",
        tmp_path.name: "file-unreadable",
        "missing": "file-unreadable",
    }
