"""The daemon's effective settings as YAML, each with its origin as a comment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import yaml

from hyper2kvmd.config import CONVERSION_DIR_VARIABLE, Loaded
from hyper2kvmd.model.frozen import Frozen

WIDTH = 56
"""The column of the origins, for values that are shorter."""
PASSWORD = re.compile(r"(://[^:/@]*:)[^@/]*@")
"""In the URL of a database, with what is before it."""


def lines(loaded: Loaded) -> Iterator[str]:
    """A configuration with the same effect, apart from a hidden password: one line for each key."""
    yield f"# {loaded.path}{' is valid' if loaded.exists else ' does not exist: every key has its default'}"
    yield from _section(loaded, loaded.config, "")


def _section(loaded: Loaded, section: Frozen, prefix: str) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for name, value in section:
        key = prefix + name
        if isinstance(value, Frozen):
            yield f"{indent}{name}:"
            yield from _section(loaded, value, f"{key}.")
        else:
            yield f"{f'{indent}{name}: {_shown(value)}':<{WIDTH}}  # {_origin(loaded, key)}"


def _origin(loaded: Loaded, key: str) -> str:
    if key in loaded.from_environment:
        return f"environment variable {CONVERSION_DIR_VARIABLE}"
    if key in loaded.places:
        return f"{loaded.path}, line {loaded.places[key].line}"
    return "default"


def _shown(value: object) -> str:
    plain = _plain(value)
    if isinstance(plain, str):
        plain = PASSWORD.sub(r"\1***@", plain)
    text = yaml.safe_dump(plain, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, Frozen):
        given = value.model_dump(exclude_defaults=True)
        return {name: _plain(one) for name, one in given.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float) or value is None else str(value)
