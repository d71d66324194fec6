"""JSON Schema (2020-12) of the YAML files that people write, made from the models and the texts of the manual.

It describes what `yaml_binding` accepts, also other forms of a value than the model has: one element for a list, sizes
with a unit, `-` for `_` in keys. Rules between several keys are not in it; `h2kvmctl check` knows those.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin
from urllib.parse import quote

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic.fields import FieldInfo

from hyper2kvmd import config, manual, spec
from hyper2kvmd.hyper2kvm_keys import BY_KEY, Row
from hyper2kvmd.manual import Name
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.sizes import SIZE, CountedIn
from hyper2kvmd.spec_batch import MAX_MACHINES
from hyper2kvmd.spec_translation import VMS
from hyper2kvmd.yaml_binding import DECIMAL, FALSE, TRUE, WHOLE, Rules

Schema: TypeAlias = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
NULL: Schema = {"type": "null"}
SAMPLES = {"number": ("12", "1.5"), "boolean": ("true", "false")}
"""How plain text looks that a YAML parser takes for another type."""
OF_A_DIRECTORY = {"to_output"}
"""Names of files that may have a directory before them, as hyper2kvm has it: `spec_translation` separates them."""


def schema(name: Name) -> Schema:
    """The schema of one document of a migration YAML, or of the configuration."""
    if name == "configuration":
        body = _Model(name, config.RULES, keep_null=False).object(config.DaemonConfig)
        return {"$schema": DIALECT, "title": "Configuration of hyper2kvmd", **body, "type": ["object", "null"]}
    machine = _Model(name, spec.RULES, keep_null=True).object(Migration)
    machine["properties"] |= {key: _foreign(row) for key, row in BY_KEY.items() if key not in Migration.model_fields}
    machine["patternProperties"] |= _hyphened({key: machine["properties"][key] for key in BY_KEY})
    several = {"type": "array", "minItems": 1, "maxItems": MAX_MACHINES, "items": {"$ref": "#/$defs/machine"}}
    listed: Schema = {**several, "description": "Several machines: each overrides the keys beside this list."}
    return {
        "$schema": DIALECT,
        "title": "Migration of hyper2kvmd",
        "type": ["object", "null"],
        "properties": {**_references(machine, "properties"), VMS: {"anyOf": [listed, NULL]}},
        "patternProperties": _references(machine, "patternProperties"),
        "additionalProperties": False,
        "$defs": {"machine": machine},
    }


def _references(machine: Schema, part: str) -> Schema:
    return {key: {"$ref": f"#/$defs/machine/{part}/{quote(key)}"} for key in machine[part]}


def _foreign(row: Row) -> Schema:
    """A key of hyper2kvm."""
    if row.decision != "refused":
        return {"deprecated": True, "description": f"A key of hyper2kvm. {row.text}".strip()}
    words = [form for word in row.harmless for form in (word, word.upper(), word.capitalize())]
    plain = [value for word, value in (("true", True), ("false", False)) if word in row.harmless]
    numbers = [int(word) for word in row.harmless if word.isdigit()]
    return {"deprecated": True, "description": f"Not supported. {row.text}", "enum": [None, *plain, *numbers, *words]}


def _hyphened(properties: Mapping[str, Schema]) -> dict[str, Schema]:
    """The same keys written with hyphens; an editor proposes only those with underscores."""
    return {f"^{key.replace('_', '[-_]')}$": value for key, value in properties.items() if "_" in key}


class _Model:
    """The schema of one type of file."""

    def __init__(self, name: Name, rules: Rules, *, keep_null: bool) -> None:
        self._name, self._rules, self._keep_null = name, rules, keep_null

    def object(self, model: type[Frozen], prefix: str = "") -> Schema:
        properties = {key: self._field(field, prefix + key) for key, field in model.model_fields.items()}
        required = [key for key, field in model.model_fields.items() if field.is_required() and prefix]
        return {
            "type": "object",
            "properties": properties,
            "patternProperties": _hyphened(properties),
            "additionalProperties": False,
            **({"required": required} if required else {}),
        }

    def _field(self, field: FieldInfo, key: str) -> Schema:
        found = self._typed(field.annotation, tuple(field.metadata), key)
        if self._keep_null and "." not in key:
            found = _any_of([found, NULL])
        return {**found, **self._description(key), **_default(field)}

    def _description(self, key: str) -> Schema:
        try:
            return {"description": manual.key_text(self._name, key)}
        except KeyError:
            return {}

    def _typed(self, wanted: Any, rules: tuple[Any, ...], key: str) -> Schema:
        origin, arguments = get_origin(wanted), get_args(wanted)
        if origin is Annotated:
            return self._typed(arguments[0], (*_flat(arguments[1:]), *rules), key)
        if origin in (Union, types.UnionType):
            return _any_of([NULL if one is type(None) else self._typed(one, rules, key) for one in arguments])
        if origin is tuple:
            return self._list(arguments[0], rules, key)
        if isinstance(wanted, type) and issubclass(wanted, Frozen):
            return self.object(wanted, f"{key}.")
        if origin is Mapping:
            names = self._typed(arguments[0], (), key)
            found: Schema = {"type": "object", "additionalProperties": self._typed(arguments[1], (), key)}
            if "pattern" in names:
                found["propertyNames"] = {"pattern": names["pattern"]}
            return found | _lengths(rules, "Properties")
        return _scalar(wanted, rules, key)

    def _list(self, item: Any, rules: tuple[Any, ...], key: str) -> Schema:
        one = self._typed(item, (), key)
        several = {"type": "array", "items": one, **_lengths(rules, "Items")}
        return _any_of([one, several]) if key in self._rules.one_or_more else several


def _scalar(wanted: Any, rules: tuple[Any, ...], key: str) -> Schema:
    if get_origin(wanted) is Literal:
        return {"enum": list(get_args(wanted))}
    if wanted is bool:
        words = [form for word in (*TRUE, *FALSE) for form in (word, word.upper(), word.capitalize())]
        return {"enum": [True, False, *words]}
    limits = {
        name: limit
        for rule in rules
        for name, limit in (("minimum", getattr(rule, "ge", None)), ("maximum", getattr(rule, "le", None)))
        if isinstance(rule, Ge | Le) and limit is not None
    }
    if key == "max_per_source":
        limits = {"minimum": 1, "maximum": config.MOST_JOBS}
    if any(isinstance(rule, CountedIn) for rule in rules):
        return _any_of([{"type": "integer", **limits}, {"type": "string", "pattern": f"^{SIZE}$"}])
    if wanted in (int, float):
        kind, digits = ("integer", WHOLE) if wanted is int else ("number", DECIMAL)
        return _any_of([{"type": kind, **limits}, {"type": "string", "pattern": f"^({digits.pattern})$"}])
    return _text(wanted, next(_patterns(rules), ""), key)


def _text(wanted: Any, pattern: str, key: str) -> Schema:
    if key in OF_A_DIRECTORY:
        pattern = f"^(.*/)?{pattern.removeprefix('^')}"
    if key == "libvirt_uri":
        pattern = f"^({spec.LIBVIRT_URI.pattern})$"
    if key == "max_per_source":
        pattern = f"^(/.*|{config.REST})$"
    if wanted is Path:
        pattern = "^."
    kinds = [kind for kind, texts in SAMPLES.items() if any(re.search(pattern, text) for text in texts)]
    found: Schema = {"type": ["string", *kinds], "minLength": 1}
    return found | {"pattern": pattern} if pattern else found


def _patterns(rules: tuple[Any, ...]) -> Iterator[str]:
    for rule in rules:
        if isinstance(pattern := getattr(rule, "pattern", None), str):
            yield pattern


def _flat(rules: tuple[Any, ...]) -> Iterator[Any]:
    """Rules, also those within a `Field`."""
    for rule in rules:
        yield from rule.metadata if isinstance(rule, FieldInfo) else (rule,)


def _lengths(rules: tuple[Any, ...], what: str) -> Schema:
    found: Schema = {}
    for rule in rules:
        if isinstance(rule, MinLen):
            found[f"min{what}"] = rule.min_length
        if isinstance(rule, MaxLen):
            found[f"max{what}"] = rule.max_length
    return found


def _any_of(choices: list[Schema]) -> Schema:
    flat = [one for choice in choices for one in (choice["anyOf"] if list(choice) == ["anyOf"] else [choice])]
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def _default(field: FieldInfo) -> Schema:
    value = field.default
    plain = isinstance(value, bool | int | float | str | Path) and value != ""
    return {"default": str(value) if isinstance(value, Path) else value} if plain else {}
