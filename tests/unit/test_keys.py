"""The manual's texts of keys say what the models are: every key, default, value and bound of them, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hyper2kvmd import config, manual, spec
from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.service import RELOADABLE
from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.manual import KeyEntry
from hyper2kvmd.manual.keys_page import fields
from hyper2kvmd.model.asked import SOURCE_KEYS, Migration

MODELS: dict[manual.Name, type[BaseModel]] = {"migration": Migration, "configuration": DaemonConfig}
IN_WORDS = {"vmdk", "vm_name", "database_url", "window.days", "notify.name", "notify.mail"}
"""Keys whose default in the model says less than a sentence."""
LONGEST = 35
"""Words of a sentence."""


KEYS = [(name, key) for name in MODELS for key in manual.keys(name).values()]
IDS = [f"{name}-{key.name}" for name, key in KEYS]
each_key = pytest.mark.parametrize(("name", "key"), KEYS, ids=IDS)


def field_of(name: manual.Name, key: KeyEntry) -> FieldInfo | None:
    return dict(fields(MODELS[name]))[key.name]


@pytest.mark.parametrize("name", MODELS)
def test_every_key_has_one_entry(name: manual.Name) -> None:
    entries = [key.name for subject in manual.read(name) for key in subject.keys]
    assert sorted(entries) == sorted(key for key, _ in fields(MODELS[name]))


@pytest.mark.parametrize("name", MODELS)
def test_every_file_is_a_subject(name: manual.Name) -> None:
    folder = Path(manual.__file__).parent / name
    assert {path.stem for path in folder.glob("*.toml")} == set(manual.SUBJECTS[name])


@each_key
def test_a_default_that_is_no_value_is_a_sentence(name: manual.Name, key: KeyEntry) -> None:
    known = field_of(name, key)
    in_words = known is not None and (known.default is None or key.name in IN_WORDS)
    assert bool(key.default) == in_words
    assert not re.search(r"\bDefault:|\b[Bb]y default\b.*`", key.text), "the default is written twice"
    assert bool(key.form) == (known is not None)


@each_key
def test_values_and_bounds_are_in_the_text(name: manual.Name, key: KeyEntry) -> None:
    known = field_of(name, key)
    if known is None:
        return
    for value in allowed_values(known):
        assert f"`{value}`" in key.text
    for bound in known.metadata:
        if isinstance(bound, Ge | Le):
            number: Any = bound.ge if isinstance(bound, Ge) else bound.le
            assert re.search(rf"\b{number}\b", key.text), f"the bound {number} is missing"


def allowed_values(known: FieldInfo) -> set[str]:
    kinds = (known.annotation, *get_args(known.annotation))
    words = {str(word) for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)}
    patterns = [getattr(one, "pattern", None) or "" for one in known.metadata]
    lists = [re.fullmatch(r"\^\(([a-z|]+)\)\$", pattern) for pattern in patterns]
    return words | {word for found in lists if found for word in found[1].split("|")}


@each_key
def test_a_text_is_made_of_sentences(name: manual.Name, key: KeyEntry) -> None:
    for text in filter(None, (key.text, key.default)):
        assert text.count("`") % 2 == 0
        for paragraph in text.split("\n\n"):
            for line in paragraph.splitlines():
                assert re.fullmatch(r"([A-Z0-9`]|libvirt).*\.", line), line
                clauses = re.split(r"[.:;] |\(|\)", re.sub(r"`[^`]*`", "word", line))
                assert max(len(clause.split()) for clause in clauses) <= LONGEST, line


@each_key
def test_an_example_is_valid_and_is_not_the_default(name: manual.Name, key: KeyEntry, tmp_path: Path) -> None:
    known = field_of(name, key)
    if known is not None and known.annotation in (bool, bool | None):
        assert not key.example
        return
    if not key.example:
        outer = manual.keys(name).get(key.name.rpartition(".")[0])
        assert known is None or (outer and f"{key.name.rpartition('.')[2]}:" in outer.example)
        return
    assert list(yaml.safe_load(key.example)) == [key.name.partition(".")[0]]
    if name == "configuration":
        file = tmp_path / "hyper2kvmd.yaml"
        file.write_text(key.example)
        assert config.load(file) != DaemonConfig() or key.name in IN_WORDS
        return
    needed = {"win_disk": "virtio_win: /srv/virtio-win.iso\n", "ova_ca": "ova: /srv/web01.ova\n"}
    for context in CONTEXTS:
        if found := parsed(f"{context}{needed.get(key.name, '')}{key.example}\n"):
            assert key.name.partition(".")[0] in found.model_fields_set
            return
    pytest.fail(f"no migration can have this: {key.example}")


CONTEXTS = ("", *(f"{key}: /srv/web01.{key}\n" for key in SOURCE_KEYS), "vmdk: /srv/a.vmdk\nlibvirt_import: true\n")
"""What the rest of the migration may be."""


def parsed(text: str) -> Migration | None:
    try:
        return spec.parse(text, default_name="web01")[0].migration
    except InvalidInput:
        return None


def test_keys_that_a_reload_does_not_apply_say_so() -> None:
    told = {key.name.partition(".")[0]: key.restart for key in manual.keys("configuration").values()}
    assert {name for name, restart in told.items() if not restart} == RELOADABLE
    assert not any(key.restart for key in manual.keys("migration").values())


def test_the_text_of_a_key_is_one_line_a_paragraph() -> None:
    assert manual.key_text("migration", "libvirt_pool").endswith(
        "`allowed_libvirt_pools` (hyper2kvmd.yaml(5)). By default, the domain has the files."
    )
    assert manual.key_text("migration", "ova").count("\n") == 2
    with pytest.raises(KeyError):
        manual.key_text("configuration", "ova")
