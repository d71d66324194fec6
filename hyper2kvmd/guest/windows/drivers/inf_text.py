"""The text of an INF: its encoding, lines, sections, fields and strings.

Source: Microsoft, "General Syntax Rules for INF Files".
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hyper2kvmd.guest.windows.drivers.faults import shown, unreadable

LARGEST = 512 << 10
"""Bytes; the largest INF of virtio-win has 60 KiB, twice that in UTF-16."""
MOST_LINES, MOST_SECTIONS = 20_000, 2000
LONGEST_LINE = 4096
"""Characters, with its continuation lines, and of a field after its strings are replaced (the limit of Windows)."""
MOST_FIELDS = 512
LONGEST_FIELDS = 64 << 10
"""Characters of all fields of a line together, after their strings are replaced."""
STRINGS = ("strings", "strings.0409")
"""The sections with strings that are used: the default, then English."""
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
FIELD = re.compile(r'(?:[^",]|"[^"]*"?)*')
QUOTED = re.compile(r'"((?:[^"]|"")*)"?')
TOKEN = re.compile(r"%([^%]*)%")


@dataclass(frozen=True)
class InfText:
    """The lines of each section by its name in lower case, without comments; and the strings, lower case as well."""

    name: str
    sections: Mapping[str, tuple[str, ...]]
    strings: Mapping[str, str]

    def lines(self, section: str) -> tuple[str, ...]:
        return self.sections.get(section.lower(), ())

    def entries(self, section: str) -> Iterator[tuple[str, list[str]]]:
        """Key, in its own spelling with strings replaced, and fields of each line `key = a, b`; others have no key."""
        for line in self.lines(section):
            key, rest = _assignment(line)
            yield self.expanded(key), self.fields(rest)

    def values(self, section: str, key: str) -> Iterator[list[str]]:
        """The fields of each line with that key."""
        return (fields for name, fields in self.entries(section) if name.lower() == key)

    def value(self, section: str, key: str) -> str:
        """The first field of the first line with that key; empty if there is none."""
        return next((fields[0] for fields in self.values(section, key) if fields), "")

    def fields(self, text: str) -> list[str]:
        found = [self.expanded(field) for field in split(text, self.name)]
        if sum(map(len, found)) > LONGEST_FIELDS:
            raise unreadable(self.name, f"a line of this INF has more than {LONGEST_FIELDS} characters in its fields")
        return found

    def raw_entries(self, section: str) -> Iterator[tuple[str, list[str]]]:
        """As `entries`, with `%strings%` as they are."""
        for line in self.lines(section):
            key, rest = _assignment(line)
            yield key, split(rest, self.name)

    def expanded(self, text: str) -> str:
        """The text with each `%name%` replaced once, and `%%` as one percent sign. Unknown names stay."""
        if "%" not in text:
            return text
        found = TOKEN.sub(lambda one: "%" if not one[1] else self.strings.get(one[1].lower(), one[0]), text)
        if len(found) > LONGEST_LINE:
            raise unreadable(self.name, f"a field of this INF has more than {LONGEST_LINE} characters")
        return found


def read_text(data: bytes, name: str) -> InfText:
    """Raises MigrationFailed (`virtio-win-unreadable`)."""
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in _lines(_decoded(data, name), name):
        if line.startswith("["):
            title = line[1:].partition("]")[0].strip().strip('"').lower()
            current = sections.setdefault(title, [])
            if len(sections) > MOST_SECTIONS:
                raise unreadable(name, f"this INF has more than {MOST_SECTIONS} sections")
        elif current is not None:
            current.append(line)
    found = {title: tuple(lines) for title, lines in sections.items()}
    return InfText(name, found, _strings(found, name))


def _strings(sections: Mapping[str, tuple[str, ...]], name: str) -> dict[str, str]:
    strings: dict[str, str] = {}
    for title in STRINGS:
        for line in sections.get(title, ()):
            key, rest = _assignment(line)
            fields = split(rest, name)
            strings.setdefault(key.lower(), fields[0] if fields else "")
    return strings


def _decoded(data: bytes, name: str) -> str:
    if len(data) > LARGEST:
        raise unreadable(name, f"this INF has {len(data)} bytes, more than {LARGEST}")
    codec = next((codec for mark, codec in BOMS if data.startswith(mark)), None)
    if codec is None:
        codec = "utf-16-le" if data[1:2] == b"\0" else "utf-8"
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        if codec != "utf-8":
            raise unreadable(name, "this INF is damaged: it is not valid UTF-16") from None
        text = data.decode("cp1252", errors="replace")
    if "\0" in text:
        raise unreadable(name, "this INF is damaged: it has NUL characters")
    return text


def _lines(text: str, name: str) -> Iterator[str]:
    """Lines that are not empty, without comments, joined where they are continued."""
    lines = re.split(r"\r\n|\r|\n", text)
    if len(lines) > MOST_LINES:
        raise unreadable(name, f"this INF has more than {MOST_LINES} lines")
    whole = ""
    for line in lines:
        whole += _without_comment(line).strip()
        if len(whole) > LONGEST_LINE:
            raise unreadable(name, f"a line of this INF has more than {LONGEST_LINE} characters")
        if whole.endswith("\\"):
            whole = whole[:-1]
            continue
        if whole:
            yield whole
        whole = ""
    if whole:
        yield whole


def _without_comment(line: str) -> str:
    if ";" not in line:
        return line
    if '"' not in line:
        return line.partition(";")[0]
    quoted = False
    for at, letter in enumerate(line):
        if letter == '"':
            quoted = not quoted
        elif letter == ";" and not quoted:
            return line[:at]
    return line


def _assignment(line: str) -> tuple[str, str]:
    """Key without its quotes, and the text behind the first equals sign outside of quotes; no key without one."""
    quoted = False
    for at, letter in enumerate(line):
        if letter == '"':
            quoted = not quoted
        elif letter == "=" and not quoted:
            return line[:at].strip().strip('"'), line[at + 1 :].strip()
    return "", line


def split(text: str, name: str) -> list[str]:
    """Fields between commas outside of quotes, without quotes; a doubled quote in quotes is one."""
    if not text.strip():
        return []
    if text.count(",") >= MOST_FIELDS:
        raise unreadable(name, f"a line of this INF has more than {MOST_FIELDS} fields: {shown(text)}")
    if '"' not in text:
        return [field.strip() for field in text.split(",")]
    fields = []
    at = 0
    while at <= len(text):
        found = FIELD.match(text, at)
        assert found is not None  # noqa: S101 - an empty field matches
        fields.append(QUOTED.sub(_unquoted, found[0].strip()))
        at = found.end() + 1
    return fields


def _unquoted(found: re.Match[str]) -> str:
    return found[1].replace('""', '"')
