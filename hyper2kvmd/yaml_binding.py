"""Binds a tree of YAML nodes to a frozen model: each field determines the type of its scalar, every error is kept.

YAML's own typing never applies: `no` for a name is the text "no", `0123` for a name keeps its zero.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingABC
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import Problem
from hyper2kvmd.model.sizes import CountedIn
from hyper2kvmd.yaml_source import (
    Document,
    KeyValue,
    Listing,
    Mapping,
    Node,
    Position,
    Scalar,
    duplicate,
    problem,
    shown,
)

M = TypeVar("M", bound=Frozen)

TRUE, FALSE = ("true", "yes", "on"), ("false", "no", "off")
NOTHING = ("", "~", "null", "Null", "NULL")
WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
LATEST = datetime(9000, 1, 1, tzinfo=UTC)
"""Later times have no window after them, and none in other time zones: Python's calendar ends with the year 9999."""
DATE_AND_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})?")
DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
NAME_OF_ENTRY = "[key]"
"""What pydantic adds to the place of an error in the name of a mapping's entry."""
WORDS_OF_UNION, LIST_OF_UNION = "literal[", "tuple["
"""How the names begin that pydantic gives to the choices of a field, in the place of an error."""
MOST_LISTED = 12
"""Keys that an error lists; of more, it has the closest ones."""
LONGEST_PATH, LONGEST_NAME = 4095, 255
"""Bytes, as Linux counts them."""


@dataclass(frozen=True)
class Rules:
    """Rules of one type of file in addition to its model."""

    remedies: MappingABC[str, str] = field(default_factory=dict)
    """Remedies for invalid values, by dotted key; `map.[key]` is for the names in a mapping."""
    base: Path | None = None
    """The directory to which relative paths refer; None refuses them."""
    home: Path | None = None
    """The directory for which `~` stands; None refuses it."""
    no_home_because: str = "Use an absolute path: `~` is not expanded in configuration files"
    manual: str = "hyper2kvmd.yaml"
    """The manual page with all keys."""
    absolute_because: str = "Use an absolute path"
    one_or_more: frozenset[str] = frozenset()
    """Keys of lists for which a single element may be written without a list."""


@dataclass(frozen=True)
class Bound(Generic[M]):
    """`value` is None unless `problems` is empty; `valid` holds the valid fields in any case."""

    value: M | None
    problems: tuple[Problem, ...]
    valid: MappingABC[str, object]
    places: MappingABC[str, Position]
    given: frozenset[str]
    """The keys in the document, also those with an error or without a value."""
    written: MappingABC[str, object] = field(default_factory=dict)
    """The fields with values of the right type, also those that are invalid."""


def bind(
    document: Document, model: type[M], rules: Rules, *, defaults: MappingABC[str, object] | None = None
) -> Bound[M]:
    """The model, or every error of the document and its fields, in order of place; those without a place come last.

    `defaults` are values for keys that the document does not give.
    """
    if document.root is None:
        return Bound(None, document.problems, {}, {}, frozenset())
    binder = _Binder(rules, list(document.problems))
    given = binder.mapping(document.root, model, prefix="")
    values = {**(defaults or {}), **given}
    value: M | None = None
    try:
        value = model.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            binder.refused(detail)
            values.pop(str(detail["loc"][0]), None)
    problems = in_order(binder.problems)
    return Bound(None if problems else value, problems, values, binder.places, frozenset(binder.given), given)


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Problems by place in the text; those without a place come last."""
    return tuple(sorted(problems, key=lambda one: (one.line or float("inf"), one.column or 0)))


def unknown_key(entry: KeyValue, known: Iterable[str], manual: str, prefix: str = "", remedy: str = "") -> Problem:
    """The error for a key that is none of `known`, with similar ones as its remedy if it has none of its own."""
    hint = remedy or _known_keys(entry.key, tuple(known), manual)
    message = f"the key {shown(entry.written)} is not known"
    return problem("key-unknown", message, hint, place=entry.place, key=shown(prefix + entry.key))


def _known_keys(name: str, known: Sequence[str], manual: str) -> str:
    close = _similar(name, known, 3)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    if len(known) <= MOST_LISTED:
        return f"Remove it. The keys are {', '.join(known)}"
    near = _similar(name, known, 3, least=0)
    return f"Remove it. The closest keys are {', '.join(near)}; `man {manual}` has all of them"


class _Mistyped(Exception):
    """The error of one node; `_Binder` turns it into a problem."""

    def __init__(self, place: Position, message: str, hint: str) -> None:
        super().__init__(message)
        self.place, self.message, self.hint = place, message, hint


class _Binder:
    def __init__(self, rules: Rules, problems: list[Problem]) -> None:
        self.rules = rules
        self.problems = problems
        self.places: dict[str, Position] = {}
        self.given: set[str] = set()

    def mapping(self, node: Mapping, model: type[Frozen], prefix: str) -> dict[str, object]:
        values: dict[str, object] = {}
        first: dict[str, KeyValue] = {}
        for entry in node.entries:
            key = prefix + entry.key
            if first.setdefault(entry.key, entry) is not entry:
                self.problems.append(duplicate(entry, first[entry.key]))
                continue
            if entry.key not in model.fields_by_key():
                remedy = self.rules.remedies.get(key, "")
                self.problems.append(unknown_key(entry, model.fields_by_key(), self.rules.manual, prefix, remedy))
                continue
            self.given.add(key)
            if entry.value is None:
                continue
            self.places[key] = entry.value.place
            try:
                value = self._typed(entry.value, _wanted(model.fields_by_key()[entry.key]), key)
            except _Mistyped as error:
                self._mistyped(error, key)
                continue
            if value == () and isinstance(entry.value, Listing) and entry.value.items:
                continue  # each of its elements has an error already
            values[entry.key] = value
        return values

    def _mistyped(self, error: _Mistyped, key: str) -> None:
        hint = self._remedy(key, error.hint)
        self.problems.append(problem("value-invalid", error.message, hint, place=error.place, key=key))

    def refused(self, detail: ErrorDetails) -> None:
        """Add an error that pydantic found, in our words and with its place."""
        names = [str(part) for part in detail["loc"] if part != NAME_OF_ENTRY]
        if any(name.startswith(WORDS_OF_UNION) for name in names):
            return  # the value is a list, which may be written in place of a word
        names = [name for name in names if not name.startswith(LIST_OF_UNION)]
        key = ".".join(name for name in names if not name.isdigit())
        place = self.places.get(".".join(names[:3])) or self.places.get(key)
        if detail["type"] == "missing":
            listed = any(isinstance(part, int) for part in detail["loc"])
            if listed or key not in self.given:
                hint = self._remedy(key, f"Add a line `{key}: ...`")
                place = self.places.get(names[0]) if listed else None
                self.problems.append(problem("key-missing", f"the key {key} is missing", hint, place=place, key=key))
            return
        message, hint = _explained(shown(key), detail)
        in_name = f"{names[0]}.{NAME_OF_ENTRY}" if NAME_OF_ENTRY in detail["loc"] else key
        hint = self._remedy(in_name, hint)
        self.problems.append(problem("value-invalid", message, hint, place=place, key=key or None))

    def _remedy(self, key: str, otherwise: str) -> str:
        """The remedy of the key, or of the mapping that it is in."""
        remedies = self.rules.remedies
        return remedies.get(key) or remedies.get(key.partition(".")[0], otherwise)

    def _typed(self, node: Node, wanted: Any, key: str) -> object:
        origin, arguments = get_origin(wanted), get_args(wanted)
        if origin in (Union, types.UnionType):
            choices = [one for one in arguments if one is not type(None)]
            if isinstance(node, Mapping) and any(get_origin(one) is tuple for one in choices):
                raise _Mistyped(node.place, f"{key} is a mapping, neither a word nor a list", "Write a list")
            if choices != list(arguments) and isinstance(node, Scalar) and not node.quoted and node.text in NOTHING:
                return None
            form = {Listing: tuple, Mapping: MappingABC}.get(type(node))
            fitting = (one for one in choices if form is _form(one))
            return self._typed(node, next(fitting, choices[0]), key)
        if origin is tuple:
            if isinstance(node, Scalar) and key in self.rules.one_or_more:
                return (self._typed(node, arguments[0], key),)
            if not isinstance(node, Listing):
                raise _Mistyped(node.place, f"{key} is not a list", f"Write `{key}: [first, second]`")
            return self._listing(node, arguments[0], key)
        if isinstance(wanted, type) and issubclass(wanted, Frozen):
            if not isinstance(node, Mapping):
                fields = ", ".join(wanted.fields_by_key())
                raise _Mistyped(node.place, f"{key} is not a mapping", f"Indent its own keys below it: {fields}")
            return self.mapping(node, wanted, prefix=f"{key}.")
        if origin is MappingABC:
            if not isinstance(node, Mapping):
                raise _Mistyped(node.place, f"{key} is not a mapping", f"Write `{key}: {{name: value}}`")
            return self._names(node, arguments[1], key)
        if not isinstance(node, Scalar):
            raise _Mistyped(node.place, f"{key} takes a single value", f"Write `{key}: value` on one line")
        if not node.text:
            raise _Mistyped(node.place, f"{key} has no value", "Give it one, or remove the key")
        return self._scalar(node, wanted, key)

    def _listing(self, node: Listing, wanted: Any, key: str) -> tuple[object, ...]:
        items: list[object] = []
        for number, item in enumerate(node.items):
            try:
                items.append(self._typed(item, wanted, key))
            except _Mistyped as error:
                self._mistyped(error, key)
            self._remember_places(item, f"{key}.{number}", key)
        return tuple(items)

    def _remember_places(self, item: Node, numbered: str, key: str) -> None:
        """Of an element, and of its keys if it is a mapping: the next element has the same keys."""
        self.places[numbered] = item.place
        for entry in item.entries if isinstance(item, Mapping) else ():
            if place := self.places.get(f"{key}.{entry.key}"):
                self.places[f"{numbered}.{entry.key}"] = place

    def _names(self, node: Mapping, wanted: Any, key: str) -> dict[str, object]:
        """A mapping from names of any kind, which are as they are written."""
        values: dict[str, object] = {}
        for entry in node.entries:
            if entry.value is None:
                continue
            name = f"{key}.{entry.written}"
            self.places[name] = entry.value.place
            try:
                values[entry.written] = self._typed(entry.value, wanted, shown(name))
            except _Mistyped as error:
                self._mistyped(error, shown(name))
        return values

    def _scalar(self, node: Scalar, wanted: Any, key: str) -> object:
        text, place = node.text, node.place
        if (counted := _counted(wanted)) is not None:
            size = counted.read(text)
            if size is None:
                raise _Mistyped(place, f"{key} is {shown(text)}, not a size", _size_remedy(counted))
            return size
        if wanted is bool:
            if text.lower() not in TRUE + FALSE:
                raise _Mistyped(place, f"{key} is {shown(text)}, neither true nor false", "Write true or false")
            return text.lower() in TRUE
        if wanted is int:
            if not WHOLE.fullmatch(text):
                hint = "Write a plain decimal number, without a unit or leading zeros"
                raise _Mistyped(place, f"{key} is {shown(text)}, not a whole number", hint)
            return int(text)
        if wanted is float:
            if not DECIMAL.fullmatch(text):
                raise _Mistyped(place, f"{key} is {shown(text)}, not a number", "Write a number such as 30 or 1.5")
            return float(text)
        if wanted is datetime:
            return _moment(text, place, key)
        if wanted is Path:
            return self._path(node, key)
        if get_origin(wanted) is Literal and text not in get_args(wanted):
            raise _Mistyped(place, f"{key} is {shown(text)}, which is not allowed", _choice(text, get_args(wanted)))
        return text

    def _path(self, node: Scalar, key: str) -> Path:
        text = node.text
        path = Path(text)
        if text.startswith("~"):
            path = self._at_home(node, key)
        elif not path.is_absolute():
            if self.rules.base is None:
                raise _Mistyped(node.place, f"{key} is the relative path {shown(text)}", self.rules.absolute_because)
            path = self.rules.base / path
        if len(bytes(path)) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in path.parts):
            raise _Mistyped(node.place, f"{key} is longer than file systems allow", "Correct the path")
        return path

    def _at_home(self, node: Scalar, key: str) -> Path:
        first, *rest = node.text.split("/", 1)
        if first != "~":
            hint = "Use an absolute path, or begin it with `~/`"
            raise _Mistyped(node.place, f"{key} begins with {shown(first)}", hint)
        if self.rules.home is None:
            raise _Mistyped(node.place, f"{key} begins with ~", self.rules.no_home_because)
        return self.rules.home.joinpath(*(part.lstrip("/") for part in rest))


def _form(wanted: Any) -> Any:
    """Of a type whose values are no scalars."""
    origin = get_origin(wanted)
    return origin if origin in (tuple, MappingABC) else None


def _wanted(field: FieldInfo) -> Any:
    """The type of a field. A mark as a size, which pydantic keeps apart from the type, belongs to it here."""
    marks = [one for one in field.metadata if isinstance(one, CountedIn)]
    return Annotated[field.annotation, marks[0]] if marks else field.annotation


def _counted(wanted: Any) -> CountedIn | None:
    marks = get_args(wanted)[1:] if get_origin(wanted) is Annotated else ()
    return next((one for one in marks if isinstance(one, CountedIn)), None)


def _size_remedy(counted: CountedIn) -> str:
    plain = "bytes" if counted.unit == 1 else "MiB"
    return f"Write {plain} as a plain number, or a whole number with the unit K, M, G or T, such as 4G"


def _moment(text: str, place: Position, key: str) -> datetime:
    """A date and a time; without an offset it is the time of this host."""
    if DATE_AND_TIME.fullmatch(text):
        with suppress(ValueError, OverflowError):
            moment = datetime.fromisoformat(text).astimezone(UTC)
            if moment < LATEST:
                return moment
    hint = "Write it as `'2026-12-31 22:00'`, in the time of this host, or with an offset as `'2026-12-31 22:00+01:00'`"
    raise _Mistyped(place, f"{key} is {shown(text)}, not a date and a time", hint)


def _choice(text: str, choices: tuple[str, ...]) -> str:
    close = _similar(text, choices, 1)
    listed = ", ".join(choices)
    return f"Did you mean {close[0]}? The choices are {listed}" if close else f"Write one of {listed}"


def _explained(key: str, detail: ErrorDetails) -> tuple[str, str]:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "greater_than_equal":
            return f"{key} is {detail['input']}, less than {context['ge']}", f"Write at least {context['ge']}"
        case "less_than_equal":
            return f"{key} is {detail['input']}, more than {context['le']}", f"Write at most {context['le']}"
        case "string_pattern_mismatch":
            return (
                f"{key} is {shown(str(detail['input']))}, which is invalid",
                f"Write a value that matches {context['pattern']}",
            )
        case "too_short":
            return f"{key} is empty", "Give it at least one element, or remove the key"
        case "too_long":
            most = context["max_length"]
            return f"{key} has {context['actual_length']} elements, more than {most}", f"Give it at most {most}"
        case _:
            return f"{key}: {shown(detail['msg'], 200)}", "Correct the value"


def _similar(name: str, known: Sequence[str], number: int, *, least: float = 0.6) -> list[str]:
    """The closest ones first, with a likeness of at least `least` (0 to 1)."""
    import difflib  # needed for a misspelled name only

    return difflib.get_close_matches(name.lower()[:40], known, n=number, cutoff=least)
