"""INI as systemd and NetworkManager write it, edited by line: unchanged lines stay the same, byte for byte.

Sources: systemd.syntax(7), nm-settings-keyfile(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEADER = re.compile(r"\s*\[([^\]]*)\]\s*")
COMMENTS = ("#", ";")


@dataclass(frozen=True)
class Setting:
    line: int
    section: str
    key: str
    value: str


class Ini:
    def __init__(self, text: str) -> None:
        self._lines: list[str | None] = list(text.split("\n"))
        self.settings: list[Setting] = []
        self.headers: dict[str, int] = {}
        """Line of each section's first header."""
        section = ""
        for number, line in enumerate(text.split("\n")):
            if match := HEADER.fullmatch(line):
                section = match[1]
                self.headers.setdefault(section, number)
            else:
                key, equals, value = line.partition("=")
                if equals and key.strip() and not key.lstrip().startswith(COMMENTS):
                    self.settings.append(Setting(number, section, key.strip(), value.strip()))

    def all(self, section: str, *keys: str) -> list[Setting]:
        return [setting for setting in self.settings if setting.section == section and setting.key in keys]

    def words(self, section: str, *keys: str) -> list[str]:
        """The words of every value of these keys, in order."""
        return [word for setting in self.all(section, *keys) for word in re.split(r"[\s;]+", setting.value) if word]

    def replace(self, setting: Setting, value: str) -> None:
        """Set another value; no change if it is the old one."""
        if value != setting.value:
            self._lines[setting.line] = f"{setting.key}={value}"

    def drop(self, setting: Setting) -> None:
        self._lines[setting.line] = None

    def add(self, section: str, key: str, value: str) -> None:
        """A setting right below the section's header, or in a new section at the end."""
        header = self.headers.get(section)
        if header is None:
            self._lines += [f"[{section}]", f"{key}={value}", ""]
        else:
            self._lines[header] = f"{self._lines[header]}\n{key}={value}"

    @property
    def text(self) -> str:
        return "\n".join(line for line in self._lines if line is not None)
