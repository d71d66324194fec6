"""The manual: what each key of a migration and of the configuration means, as data.

There is one TOML file for each subject. Manual pages, docs/reference/ and the descriptions in the JSON Schema are made
from these texts. A key's default belongs to the model; only what cannot be read there is written here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Literal

from hyper2kvmd.model.frozen import Frozen

Name = Literal["migration", "configuration"]
SUBJECTS: Mapping[Name, tuple[str, ...]] = {
    "migration": ("source", "result", "repairs", "target", "domain", "job"),
    "configuration": ("directories", "limits", "time", "notifications", "programs"),
}
"""The files of each manual, in the order of its pages."""


class KeyEntry(Frozen):
    """One key. Texts are Markdown, one sentence a line; names of manual pages stand as `h2kvmctl(1)`, without marks."""

    name: str
    """`hooks.before` is the key `before` in the mapping `hooks`."""
    text: str
    form: str = ""
    """What the value is, as `path | list`. Empty for a mapping whose keys have entries of their own."""
    default: str = ""
    """A sentence, for a default that is no plain value of the model."""
    example: str = ""
    """Lines of YAML. A switch needs none."""
    restart: bool = False
    """The daemon applies it when it starts, and not at a reload."""


class KeySubject(Frozen):
    title: str
    keys: tuple[KeyEntry, ...]


@cache
def read(manual: Name) -> tuple[KeySubject, ...]:
    """The keys of this manual by subject."""
    return tuple(_subject(manual, subject) for subject in SUBJECTS[manual])


@cache
def keys(manual: Name) -> Mapping[str, KeyEntry]:
    """Every key of this manual by its name."""
    return {key.name: key for subject in read(manual) for key in subject.keys}


def key_text(manual: Name, name: str) -> str:
    """The meaning of a key in Markdown, each paragraph on one line.

    Raises KeyError for a key without an entry.
    """
    key = keys(manual)[name]
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in f"{key.text} {key.default}".split("\n\n"))


def _subject(manual: Name, subject: str) -> KeySubject:
    text = resources.files(__name__).joinpath(manual, f"{subject}.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    return KeySubject(title=tables.pop("title"), keys=tuple(_keys(tables)))


def _keys(tables: Mapping[str, Mapping[str, str | bool]]) -> Iterator[KeyEntry]:
    for name, table in tables.items():
        yield KeyEntry.model_validate({key: _stripped(value) for key, value in table.items()} | {"name": name})


def _stripped(value: str | bool) -> str | bool:
    return value.strip() if isinstance(value, str) else value
