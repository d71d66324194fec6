"""The keys of a machine that its .vmx describes: `vmx`, `datastore_map`, `snapshot`."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd import spec
from hyper2kvmd.model.asked import DATASTORES_MAX, Migration
from hyper2kvmd.model.jobs import Problem
from tests.support.parsed import only_migration

VMX = "vmx: /srv/web01.vmx\n"


def parse(text: str, base: Path | None = None) -> Migration:
    return only_migration(spec.parse(text, default_name="web01", base=base))


def problems(text: str, base: Path | None = None) -> tuple[Problem, ...]:
    with pytest.raises(spec.Rejected) as caught:
        parse(text, base)
    assert all(one.message.isprintable() and one.hint for one in caught.value.problems)
    return caught.value.problems


def test_a_machine_and_its_datastores() -> None:
    entries = ("ssd-1: /exports/ssd1", "ssd_1: /exports/other", "Daten 2: '/exports/daten 2'", "7: /x")
    text = f"{VMX}datastore_map:\n" + "".join(f"  {entry}\n" for entry in entries)
    assert dict(parse(text).datastore_map) == {
        "ssd-1": Path("/exports/ssd1"),
        "ssd_1": Path("/exports/other"),
        "Daten 2": Path("/exports/daten 2"),
        "7": Path("/x"),
    }
    asked = parse(text)
    assert Migration.model_validate_json(asked.model_dump_json()) == asked


def test_relative_directories_of_a_one_shot_run() -> None:
    assert parse("vmx: web01.vmx\ndatastore_map: {a: ssd1}\n", Path("/home/bob")).datastore_map == {
        "a": Path("/home/bob/ssd1")
    }


@pytest.mark.parametrize(
    ("entries", "places"),
    [
        ("{a: b}", [("datastore_map.a", 2, 20)]),
        ("{a: ~/x}", [("datastore_map.a", 2, 20)]),
        ("{a: }", [("datastore_map.a", 2, 19)]),
        ("{a: [/x]}", [("datastore_map.a", 2, 20)]),
        ("{a: {b: /x}}", [("datastore_map.a", 2, 20)]),
        ("{a/b: /x}", [("datastore_map.a/b", 2, 22)]),
        ("{'': /x}", [("datastore_map.", 2, 21)]),
        ("{a: x, b: /y, c: z}", [("datastore_map.a", 2, 20), ("datastore_map.c", 2, 33)]),
        ("/exports", [("datastore_map", 2, 16)]),
        ("[/exports]", [("datastore_map", 2, 16)]),
    ],
)
def test_every_entry_has_its_own_error(entries: str, places: list[tuple[str, int, int]]) -> None:
    found = problems(f"{VMX}datastore_map: {entries}\n")
    assert [(one.key, one.line, one.column) for one in found] == places
    assert {one.code for one in found} == {"value-invalid"}
    assert all("^" not in one.hint for one in found)


def test_a_datastore_is_named_once() -> None:
    (found,) = problems(f"{VMX}datastore_map: {{a-b: /x, a-b: /y}}\n")
    assert found.code == "key-duplicate"


def test_a_key_is_given_once_in_any_spelling() -> None:
    (found,) = problems(f"{VMX}no-grub: yes\nno_grub: no\n")
    assert (found.code, found.line, found.column) == ("key-duplicate", 3, 1)


def test_the_number_of_datastores_is_limited() -> None:
    def lines(count: int) -> str:
        return f"{VMX}datastore_map:\n" + "".join(f"  d{number}: /x\n" for number in range(count))

    assert len(parse(lines(DATASTORES_MAX)).datastore_map) == DATASTORES_MAX
    assert [one.key for one in problems(lines(DATASTORES_MAX + 1))] == ["datastore_map"]


@pytest.mark.parametrize("source", ["vmdk: /srv/a.vmdk", "ovf: /srv/a.ovf", "ova: /srv/a.ova"])
def test_a_map_without_a_vmx_is_a_mistake(source: str) -> None:
    (found,) = problems(f"{source}\ndatastore_map: {{a: /x}}\n")
    assert (found.code, found.key) == ("value-conflict", "datastore_map")


@pytest.mark.parametrize("name", ["before update", "3", "'null'", "base"])
def test_a_snapshot_of_a_machine(name: str) -> None:
    assert parse(f"{VMX}snapshot: {name}\n").snapshot == name.strip("'")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("vmdk: /srv/a.vmdk\nsnapshot: before update\n", "value-conflict"),
        ("ovf: /srv/a.ovf\nsnapshot: base\n", "value-conflict"),
        ("ova: /srv/a.ova\nsnapshot: x\n", "value-conflict"),
        (f"{VMX}snapshot: ''\n", "value-invalid"),
        (f"{VMX}snapshot: {'x' * 300}\n", "value-invalid"),
        (f"{VMX}snapshot: [a]\n", "value-invalid"),
    ],
)
def test_a_snapshot_that_cannot_be_meant(text: str, code: str) -> None:
    (found,) = problems(text)
    assert (found.code, found.key) == (code, "snapshot")


def test_the_base_of_disks() -> None:
    assert parse("vmdk: /srv/a.vmdk\nsnapshot: base\n").snapshot == "base"
    assert parse("vmdk: /srv/a.vmdk\nsnapshot: ~\n").snapshot is None
