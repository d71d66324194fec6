"""The form of VMware's settings: `key = "value"` by line, in a .vmx and in a .vmsd.

Keys are compared without case. Values have escapes: a bar and two hexadecimal digits.
Source: files of ESXi, Workstation and Fusion; libvirt and virt-v2v read them alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from hyper2kvmd.disk.text_encoding import decode

LINE_END = re.compile(r"\r\n|\n|\r")
SETTING = re.compile(r"[ \t]*([A-Za-z0-9_.:-]+)[ \t]*=[ \t]*(?:\"([^\"\n]*)\"|([^\"#\s][^\"#\n]*))")
"""Some tools write values without quotes, which VMware accepts."""
ESCAPE = re.compile(r"\|([0-9A-Fa-f]{2})")
TRUE, FALSE = ("true", "t", "yes", "y", "on", "1"), ("false", "f", "no", "n", "off", "0")
NUMBER = re.compile(r"[0-9]{1,9}")
BOM = "\ufeff"


@dataclass(frozen=True)
class Settings:
    values: Mapping[str, str] = field(default_factory=dict)
    """By key in lower case; of a repeated key the last value, as in VMware."""
    repeated: tuple[str, ...] = ()
    """Keys with several values that differ."""

    def text(self, key: str) -> str:
        """Empty if the key is missing."""
        return self.values.get(key.lower(), "").strip()

    def flag(self, key: str, *, default: bool = False) -> bool:
        """`default` if the key is missing or has another value."""
        word = self.text(key).lower()
        return word in TRUE or (default and word not in FALSE)

    def number(self, key: str, possible: range) -> int | None:
        """None for any other value."""
        text = self.text(key)
        return int(text) if NUMBER.fullmatch(text) and int(text) in possible else None

    def below(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Keys that begin with `prefix`, and their values."""
        return ((key, value) for key, value in self.values.items() if key.startswith(prefix))


def parse_settings(data: bytes, is_used: Callable[[str], bool] = lambda _: True, limit: int | None = None) -> Settings:
    """The settings whose key in lower case `is_used`; at most `limit` of them."""
    values: dict[str, str] = {}
    repeated: dict[str, None] = {}
    for line in LINE_END.split(decode(data).removeprefix(BOM)):
        match = SETTING.match(line)
        key = match[1].lower() if match else ""
        if not match or not is_used(key):
            continue
        value = _unescaped(match[2] if match[2] is not None else match[3].strip())
        if key in values and values[key] != value:
            repeated[key] = None
        if key in values or limit is None or len(values) < limit:
            values[key] = value
    return Settings(values, tuple(repeated))


def _unescaped(value: str) -> str:
    return ESCAPE.sub(lambda match: chr(int(match[1], 16)), value)
