"""Lines of fstab, parsed so that a single field can be replaced. Source: fstab(5)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LINE = re.compile(r"([ \t]*)([^\s#]\S*)([ \t].*)", re.DOTALL)
FIELD = re.compile(r"[^ \t\r]+")

OPTIONS = re.compile(r"([ \t]*\S+[ \t]+\S+[ \t]+[^\s]+(?:[ \t]+(?=\S))?)([^ \t\r]*)(.*)", re.DOTALL)
"""The text before the fourth field, that field, the rest."""


@dataclass(frozen=True)
class FstabEntry:
    """One mount. `number` counts lines from 0."""

    number: int
    spec: str
    mount_point: str
    fs_type: str
    options: tuple[str, ...]

    def option(self, name: str) -> str | None:
        """The value of `name=value` among the options."""
        for option in self.options:
            key, equals, value = option.partition("=")
            if key == name and equals:
                return value
        return None


def entries(text: str) -> Iterator[FstabEntry]:
    for number, line in enumerate(text.split("\n")):
        match = LINE.fullmatch(line)
        fields = FIELD.findall(match[3]) if match else []
        if match and fields:
            yield FstabEntry(
                number,
                match[2],
                fields[0].replace("\\040", " "),
                fields[1] if len(fields) > 1 else "",
                tuple(fields[2].split(",")) if len(fields) > 2 else (),
            )


def with_spec(text: str, number: int, spec: str) -> str:
    """`text` with the first field of line `number` replaced; every other byte stays."""
    lines = text.split("\n")
    match = LINE.fullmatch(lines[number])
    if match is not None:
        lines[number] = match[1] + spec + match[3]
    return "\n".join(lines)


def with_option(text: str, number: int, option: str) -> str:
    """`text` with one more option on line `number`; every other byte stays."""
    lines = text.split("\n")
    match = OPTIONS.fullmatch(lines[number])
    if match is not None:
        lines[number] = f"{match[1]}{match[2]},{option}{match[3]}" if match[2] else f"{match[1]} {option}{match[3]}"
    return "\n".join(lines)
