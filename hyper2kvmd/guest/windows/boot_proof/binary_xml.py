"""The provider and the event ID of one record of an event log, from its binary XML.

A record names a template in its chunk and has the values for it. Only the elements `Provider` and `EventID` are looked
for; nothing is rendered. Sources: [MS-EVEN6] section 2.2.12 (BinXml), libevtx' description of the file format.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass

MORE = 0x40
"""Flag of a token: attributes or further content follow."""
END, OPEN_ELEMENT, CLOSE_START, CLOSE_EMPTY, END_ELEMENT, VALUE, ATTRIBUTE = range(7)
CDATA, CHARACTER, ENTITY, TARGET, INSTRUCTION, TEMPLATE, NORMAL, OPTIONAL, FRAGMENT = range(7, 16)
STRING, UINT16 = 0x01, 0x06
PROVIDER, EVENT_ID = ("Event", "System", "Provider"), ("Event", "System", "EventID")
NAME = "Name"
DEPTH_LIMIT, TOKENS_LIMIT, NAME_LIMIT = 16, 200, 256
"""Elements in each other, tokens of a template, characters of a name. Both elements are among the first tokens of a
template, and a place in a chunk can be named again and again.
"""
LONGEST_PROVIDER = 200


class Unreadable(ValueError):
    """A record that cannot be understood. It stays within the reader of event logs."""


@dataclass(frozen=True)
class Substitution:
    """The value with this number of the record."""

    number: int


Field = str | Substitution | None


@dataclass(frozen=True)
class Template:
    provider: Field
    event_id: Field


@dataclass
class Cursor:
    """A place in a chunk. Raises Unreadable beyond `end`."""

    data: bytes
    at: int
    end: int

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def take(self, size: int) -> bytes:
        start = self.at
        if not 0 <= start <= start + size <= self.end:
            raise Unreadable("beyond its end")
        self.at += size
        return self.data[start : self.at]

    def text(self) -> str:
        """With the number of its characters before it."""
        return self.take(2 * self.number(2)).decode("utf-16-le", errors="replace")

    def name(self) -> str:
        """A name is where it is used first; later uses have only its place in the chunk."""
        place = self.number(4)
        if place == self.at:
            return self._name()
        return Cursor(self.data, place, len(self.data))._name()

    def _name(self) -> str:
        self.take(6)  # the next name with the same hash, the hash
        length = self.number(2)
        if length > NAME_LIMIT:
            raise Unreadable("a name is too long")
        text = self.take(2 * length).decode("utf-16-le", errors="replace")
        self.take(2)
        return text


def read_identity(chunk: bytes, at: int, end: int, templates: dict[int, Template]) -> tuple[str, int | None]:
    """Provider and event ID of the record whose binary XML is `chunk[at:end]`; templates are kept in `templates`.

    Raises Unreadable.
    """
    cursor = Cursor(chunk, at, end)
    if cursor.number(1) != FRAGMENT or len(cursor.take(3)) != 3 or cursor.number(1) != TEMPLATE:
        raise Unreadable("it does not begin with a template")
    cursor.take(5)
    place = cursor.number(4)
    is_here = place == cursor.at
    body = Cursor(chunk, place, end if is_here else len(chunk))
    body.take(20)  # the next template, GUID
    size = body.number(4)
    if is_here:
        cursor.take(24 + size)
    if place not in templates:
        templates[place] = _template(Cursor(chunk, body.at, min(body.at + size, body.end)))
    template, values = templates[place], _values(cursor)
    return _string(template.provider, values), _number(template.event_id, values)


def _values(cursor: Cursor) -> list[tuple[int, bytes]]:
    """Type and bytes of each."""
    count = cursor.number(4)
    table = cursor.take(4 * count)
    kinds = list(struct.iter_unpack("<HBx", table))
    return [(kind, cursor.take(size)) for size, kind in kinds]


def _string(field: Field, values: list[tuple[int, bytes]]) -> str:
    if isinstance(field, Substitution):
        kind, data = _value(field, values)
        field = data.decode("utf-16-le", errors="replace").rstrip("\0") if kind == STRING else ""
    return (field or "")[:LONGEST_PROVIDER]


def _number(field: Field, values: list[tuple[int, bytes]]) -> int | None:
    if isinstance(field, Substitution):
        kind, data = _value(field, values)
        return int.from_bytes(data, "little") if kind == UINT16 and len(data) == 2 else None
    if field is None or not (field.isascii() and field.isdigit() and len(field) <= 5):
        return None
    return int(field)


def _value(field: Substitution, values: list[tuple[int, bytes]]) -> tuple[int, bytes]:
    if field.number >= len(values):
        raise Unreadable("a value is missing")
    return values[field.number]


def _template(cursor: Cursor) -> Template:
    """With what was found before its end, or before a token that cannot be read."""
    walk = _TemplateReader(cursor)
    with contextlib.suppress(Unreadable):
        for _ in range(TOKENS_LIMIT):
            if not walk.step():
                break
    return Template(walk.provider, walk.event_id)


class _TemplateReader:
    """The way through a template, token after token, until both fields are found."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._path: list[str] = []
        self._attribute = ""
        self.provider: Field = None
        self.event_id: Field = None

    def step(self) -> bool:
        """Whether there is more to read."""
        if self.provider is not None and self.event_id is not None:
            return False
        cursor = self._cursor
        byte = cursor.number(1)
        token = byte & ~MORE
        if token == OPEN_ELEMENT:
            self._open(has_attributes=byte != token)
        elif token in (CLOSE_EMPTY, END_ELEMENT):
            self._close()
        elif token == CLOSE_START:
            self._attribute = ""
        elif token == ATTRIBUTE:
            self._attribute = cursor.name()
        elif token == VALUE:
            if cursor.number(1) != STRING:
                raise Unreadable("a text of another type")
            self._note(cursor.text())
        elif token in (NORMAL, OPTIONAL):
            self._note(Substitution(cursor.number(2)))
            cursor.take(1)
        else:
            self._skip(token)
        return token != END

    def _open(self, *, has_attributes: bool) -> None:
        self._cursor.take(6)  # the substitution that it depends on, its size
        self._path.append(self._cursor.name())
        self._attribute = ""
        if has_attributes:
            self._cursor.take(4)  # their size
        if len(self._path) > DEPTH_LIMIT:
            raise Unreadable("too deep")

    def _close(self) -> None:
        if not self._path:
            raise Unreadable("an end without a beginning")
        self._path.pop()
        self._attribute = ""

    def _skip(self, token: int) -> None:
        cursor = self._cursor
        if token in (CDATA, INSTRUCTION):
            cursor.text()
        elif token == CHARACTER:
            cursor.take(2)
        elif token in (ENTITY, TARGET):
            cursor.name()
        elif token == FRAGMENT:
            cursor.take(3)
        elif token != END:
            raise Unreadable("an unknown token")

    def _note(self, value: Field) -> None:
        path = tuple(self._path)
        if path == PROVIDER and self._attribute == NAME and self.provider is None:
            self.provider = value
        elif path == EVENT_ID and not self._attribute and self.event_id is None:
            self.event_id = value
