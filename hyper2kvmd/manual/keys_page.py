"""The pages about keys: the entries of the manual, with the defaults of the models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from hyper2kvmd import manual
from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.manual import KeyEntry, exits
from hyper2kvmd.manual.page import Group, ManualPage, Term
from hyper2kvmd.model.asked import Migration

INTRODUCTIONS = {
    "The source": "Exactly one of `vmdk`, `vmx`, `ovf`, `ova` and `libvirt_xml` is required.",
    "The libvirt domain": "With `target: libvirt`, its XML is always written beside the image.",
}


def prose(name: str) -> str:
    """What is written by hand of a page."""
    return resources.files("hyper2kvmd.manual").joinpath("pages", f"{name}.md").read_text(encoding="utf-8")


def migration() -> ManualPage:
    return ManualPage(
        name="hyper2kvm-migration",
        section=5,
        summary="a migration from VMware to KVM, as a YAML file",
        prose=prose("hyper2kvm-migration"),
        groups={"keys": tuple(_groups("migration", Migration)), "exit statuses": (exits.of_commands(),)},
    )


def configuration() -> ManualPage:
    return ManualPage(
        name="hyper2kvmd.yaml",
        section=5,
        summary="configuration of hyper2kvmd",
        prose=prose("hyper2kvmd.yaml"),
        groups={"keys": tuple(_groups("configuration", DaemonConfig))},
    )


def _groups(name: manual.Name, model: type[BaseModel]) -> Iterator[Group]:
    for subject in manual.read(name):
        outer = [key for key in subject.keys if "." not in key.name]
        terms = tuple(_term(key, subject.keys, model) for key in outer)
        yield Group(terms, subject.title, INTRODUCTIONS.get(subject.title, ""))


def _term(key: KeyEntry, all_keys: Sequence[KeyEntry], model: type[BaseModel]) -> Term:
    inner = [each for each in all_keys if each.name.startswith(f"{key.name}.")]
    return Term(
        kind="key",
        name=key.name,
        values=key.form,
        text="\n\n".join(_paragraphs(key, model)),
        inner=tuple(_term(each, (), model) for each in inner),
    )


def _paragraphs(key: KeyEntry, model: type[BaseModel]) -> Iterator[str]:
    yield key.text
    last = [key.default or f"Default: `{default_text(key.name, model)}`."] if key.form else []
    one_line = key.example and "\n" not in key.example
    last += [f"Example: `{key.example}`."] if one_line else []
    last += ["Restart."] if key.restart and key.form else []
    if last:
        yield "\n".join(last)
    if key.example and not one_line:
        yield f"```yaml\n{key.example}\n```"


def default_text(name: str, model: type[BaseModel]) -> str:
    """The default of a key of this model, as it is written in a YAML."""
    known = dict(fields(model))[name]
    if known is None:
        raise ValueError(f"{name} is a mapping, whose keys have defaults")
    return _written(to_jsonable_python(known.default))


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo | None]]:
    """The keys of this model, as a YAML has them; None for a mapping, whose own keys follow."""
    for attribute, known in model.model_fields.items():
        name = f"{prefix}{known.alias or attribute}"
        inner = _inner_model(known.annotation)
        yield name, None if inner else known
        if inner:
            yield from fields(inner, f"{name}.")


def _inner_model(annotation: object) -> type[BaseModel] | None:
    """The model that a key holds, also if it may be left out, or is a list of them."""
    kinds = {*get_args(annotation)} - {type(None), Ellipsis} or {annotation}
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return models[0] if len(models) == len(kinds) == 1 else None


def _written(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, Mapping | list):
        return yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
    return yaml.safe_dump(value).removesuffix("\n").removesuffix("\n...")
