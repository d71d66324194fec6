"""Parses strict YAML into a tree of nodes with their places.

It reads parser events only and resolves, constructs or expands nothing. Aliases, merge keys and tags have no effect and
are reported as errors; types are left to `yaml_binding`, which has the model.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import yaml

from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.model.jobs import Problem

MAX_BYTES = 64 * 1024
MAX_DEPTH = 8
MAX_NODES = 1000
SHOWN = 60
"""Characters of a key or value that a message repeats."""

FORBIDDEN = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
"""Control characters, NUL, surrogates, and line breaks of YAML 1.1 that no editor shows as such. Also characters that
make an editor show the text in another order than it is read in."""
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""What escapes in a quoted value can give: control characters, and halves of characters (surrogates)."""


@dataclass(frozen=True)
class Position:
    """Line and column count from 1."""

    line: int
    column: int
    file: str | None = None
    """Only given if the text is one of several files."""


@dataclass(frozen=True)
class Scalar:
    text: str
    quoted: bool
    place: Position


@dataclass(frozen=True)
class Listing:
    items: tuple[Node, ...]
    place: Position


@dataclass(frozen=True)
class KeyValue:
    key: str
    """As spelled in the model: `_` for `-`."""
    written: str
    place: Position
    value: Node | None
    """None when the value was reported already."""


@dataclass(frozen=True)
class Mapping:
    entries: tuple[KeyValue, ...]
    place: Position


Node = Scalar | Listing | Mapping


@dataclass(frozen=True)
class Document:
    """`root` is None when the text could not be read to its end."""

    root: Mapping | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Documents:
    """The documents of one text, at least one; `roots` is None when the text could not be read to its end."""

    roots: tuple[Mapping, ...] | None
    problems: tuple[Problem, ...]


def problem(code: str, message: str, hint: str, *, place: Position | None = None, key: str | None = None) -> Problem:
    return Problem(
        code=code,
        message=message,
        hint=hint,
        kind="permanent",
        key=key,
        line=place.line if place else None,
        column=place.column if place else None,
        file=place.file if place else None,
    )


def duplicate(entry: KeyValue, first: KeyValue) -> Problem:
    message = f"the key {shown(entry.written)} was given before, as {shown(first.written)} on line {first.place.line}"
    return problem("key-duplicate", message, "Keep one of the two", place=entry.place, key=entry.key)


def shown(text: str, limit: int = SHOWN) -> str:
    """Untrusted text, made fit for one line of a message."""
    clean = "".join(character if character.isprintable() else " " for character in text[: limit + 1])
    return clean if len(clean) <= limit else clean[:limit] + "..."


def read_file(path: Path) -> str:
    """Text of a regular file of at most 64 KiB of UTF-8.

    Raises InvalidInput (`file-unreadable`, `file-too-large`, `file-not-text`).
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InvalidInput("file-unreadable", f"{path} is not a regular file", hint="Name a YAML file")
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        hint = "Correct the path" if absent else "Correct the path, or the owner and mode of the file"
        raise InvalidInput("file-unreadable", f"{path} cannot be read: {error.strerror}", hint=hint) from error
    if len(data) > MAX_BYTES:
        hint = "Split the file, and write no data into it"
        raise InvalidInput("file-too-large", f"{path} is larger than {MAX_BYTES // 1024} KiB", hint=hint)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte {error.start + 1}"
        raise InvalidInput("file-not-text", f"{path} is not UTF-8 at {where}", hint="Save it as UTF-8") from error


def read(text: str) -> Document:
    """The only mapping in `text`, empty for empty text. Never raises: all errors are in `problems`."""
    parser, problems = _parser_of(text, None)
    if parser is None:
        return Document(None, problems)
    stream = parser.stream(several=False)
    return Document(stream.roots[0] if stream.roots else None, stream.problems)


def read_all(text: str, file: str | None = None) -> Documents:
    """The mappings in `text`, one for each document that is not empty. Never raises, like `read`."""
    parser, problems = _parser_of(text, file)
    return Documents(None, problems) if parser is None else parser.stream(several=True)


def _parser_of(text: str, file: str | None) -> tuple[_Parser | None, tuple[Problem, ...]]:
    if len(text) > MAX_BYTES or len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        message = f"the text is larger than {MAX_BYTES // 1024} KiB"
        return None, (problem("yaml-too-large", message, "Split the file, and write no data into it"),)
    text = text.removeprefix("\ufeff")
    if found := FORBIDDEN.search(text):
        before = text[: found.start()]
        place = Position(before.count("\n") + 1, found.start() - (before.rfind("\n") + 1) + 1, file)
        message = f"the character U+{ord(found[0]):04X} is not allowed"
        return None, (problem("yaml-syntax", message, "Remove it, or save the file as UTF-8", place=place),)
    return _Parser(text, file), ()


class _Unreadable(Exception):
    """The rest of the text cannot be read; the problem is already on the list."""


class _Parser:
    def __init__(self, text: str, file: str | None) -> None:
        self._file = file
        self._events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        self._problems: list[Problem] = []
        self._nodes = 0

    def stream(self, *, several: bool) -> Documents:
        """`several`: whether the text may have more than one document."""
        roots: tuple[Mapping, ...] | None = None
        try:
            roots = self._roots(several)
        except _Unreadable:
            pass
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = Position(mark.line + 1, mark.column + 1, self._file) if mark else None
            reason = " ".join(part for part in (error.context, error.problem) if part)
            hint = "Correct the YAML there: quote values that contain ':' or '#', and indent with spaces"
            self._report("yaml-syntax", f"not valid YAML: {shown(reason, 2 * SHOWN)}", hint, place)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            self._report("yaml-syntax", f"not valid YAML: {shown(str(error), 2 * SHOWN)}", "Correct the YAML", None)
        return Documents(roots, tuple(self._problems))

    def _roots(self, several: bool) -> tuple[Mapping, ...]:
        next(self._events)
        roots: list[Mapping] = []
        while not isinstance(start := next(self._events), yaml.StreamEndEvent):
            if roots and not several:
                hint = "Give each document a file of its own"
                self._fatal("a second document begins here", hint, self._place(start))
            roots.append(self._root())
        full = [root for root in roots if root.entries]
        return tuple(full or [Mapping((), Position(1, 1, self._file))])

    def _root(self) -> Mapping:
        node = self._node(next(self._events), depth=0)
        next(self._events)
        if isinstance(node, Mapping):
            return node
        place = node.place if node else Position(1, 1, self._file)
        if not isinstance(node, Scalar) or node.text:
            self._fatal("the file is not a mapping", "Write lines of the form `key: value`", place)
        return Mapping((), place)

    def _node(self, event: yaml.Event, *, depth: int) -> Node | None:
        place = self._place(event)
        self._nodes += 1
        if depth > MAX_DEPTH:
            self._fatal("nested too deeply", f"Nest at most {MAX_DEPTH} levels", place)
        if self._nodes > MAX_NODES:
            self._fatal(f"more than {MAX_NODES} keys and values", "Split the file", place)
        if isinstance(event, yaml.AliasEvent):
            self._report(
                "yaml-refused", f"the alias *{shown(event.anchor or '')} is refused", "Write the value itself", place
            )
            return None
        if not isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent):
            raise _Unreadable
        if event.anchor is not None:
            self._report("yaml-refused", f"the anchor &{shown(event.anchor)} is refused", "Remove it", place)
        if event.tag is not None:
            hint = "Remove it: the key determines the type of its value"
            self._report("yaml-refused", f"the tag {shown(event.tag)} is refused", hint, place)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, place)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._listing(place, depth)
        return self._mapping(place, depth)

    def _scalar(self, event: yaml.ScalarEvent, place: Position) -> Scalar | None:
        found = CONTROL.search(event.value)
        if found:
            kind = "surrogate" if found[0] >= "\ud800" else "control character"
            message = f"a value contains the {kind} U+{ord(found[0]):04X}"
            self._report("yaml-refused", message, "Write the value on one line, without escapes", place)
            return None
        return Scalar(event.value, event.style is not None, place)

    def _listing(self, place: Position, depth: int) -> Listing:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            node = self._node(event, depth=depth + 1)
            if node is not None:
                items.append(node)
        return Listing(tuple(items), place)

    def _mapping(self, place: Position, depth: int) -> Mapping:
        entries: dict[str, KeyValue] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            name = self._node(event, depth=depth + 1)
            value = self._node(next(self._events), depth=depth + 1)
            if not isinstance(name, Scalar):
                if name is not None:
                    self._report("yaml-refused", "a key is not plain text", "Write `key: value`", name.place)
            elif name.text == "<<" and not name.quoted:
                self._report("yaml-refused", "the merge key << is refused", "Write the keys themselves", name.place)
            else:
                entry = KeyValue(name.text.replace("-", "_"), name.text, name.place, value)
                if name.text in entries:
                    self._problems.append(duplicate(entry, entries[name.text]))
                else:
                    entries[name.text] = entry
        return Mapping(tuple(entries.values()), place)

    def _report(self, code: str, message: str, hint: str, place: Position | None, key: str | None = None) -> None:
        self._problems.append(problem(code, message, hint, place=place, key=key))

    def _fatal(self, message: str, hint: str, place: Position) -> NoReturn:
        self._report("yaml-refused", message, hint, place)
        raise _Unreadable

    def _place(self, event: yaml.Event) -> Position:
        mark = event.start_mark
        return Position(mark.line + 1, mark.column + 1, self._file) if mark else Position(1, 1, self._file)
