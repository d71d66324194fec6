"""The default entry of a boot loader's menu: GRUB 2, GRUB legacy, extlinux.

Sources: GRUB manual (`default`, `saved_entry`, `menuentry`, `submenu`), GRUB legacy manual, syslinux.txt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

ENTRY = re.compile(r"^[ \t]*(?:menuentry|submenu)[ \t]+(?:'([^']*)'|\"([^\"]*)\"|(\S+))(.*)$")
ID = re.compile(r"(?:--id[= ]|\$\{?menuentry_id_option\}?)\s*['\"]?([^'\"\s{]+)")
DEFAULT = re.compile(r"^[ \t]*set[ \t]+default=[\"']?([^\"'\n]*+)[\"']?[ \t\r]*$", re.MULTILINE)
ENVIRONMENT = re.compile(r"^(saved_entry|next_entry)=(.+)$", re.MULTILINE)
LEGACY_DEFAULT = re.compile(r"^[ \t]*default[ \t=]+(\d{1,9})", re.MULTILINE | re.IGNORECASE)
TITLE = re.compile(r"^[ \t]*title\b.*$", re.MULTILINE | re.IGNORECASE)
LABEL = re.compile(r"^[ \t]*label[ \t]+(\S+)", re.MULTILINE | re.IGNORECASE)
NUMBER = re.compile(r"\d{1,9}")
LABEL_DEFAULT = re.compile(r"^[ \t]*default[ \t]+(\S+)", re.MULTILINE | re.IGNORECASE)


@dataclass
class _MenuEntry:
    names: tuple[str, ...]
    lines: list[str] = field(default_factory=list)
    children: list[_MenuEntry] = field(default_factory=list)


def default_entry(text: str, environment: str = "") -> str:
    """The text of the entry that starts by itself, the whole text if it has no entries; empty if that is unclear.

    `environment` is GRUB's environment block.
    """
    if re.search(r"^[ \t]*menuentry\b", text, re.MULTILINE):
        return _of_grub(text, environment)
    if TITLE.search(text):
        found = LEGACY_DEFAULT.search(text)
        return _section(text, [match.start() for match in TITLE.finditer(text)], int(found[1]) if found else 0)
    if labels := list(LABEL.finditer(text)):
        found = LABEL_DEFAULT.search(text)
        names = [match[1] for match in labels]
        number = names.index(found[1]) if found and found[1] in names else 0
        return _section(text, [match.start() for match in labels], number)
    return text


def _section(text: str, starts: Sequence[int], number: int) -> str:
    if number >= len(starts):
        return ""
    return text[starts[number] : (*starts, len(text))[number + 1]]


def _of_grub(text: str, environment: str) -> str:
    saved = dict(ENVIRONMENT.findall(environment))
    values = [value for value in DEFAULT.findall(text) if "next_entry" not in value]
    wanted = saved.get("next_entry") or (values[-1] if values else "0")
    if "$" in wanted:
        wanted = saved.get("saved_entry", "0") if "saved_entry" in wanted else ""
    entries = _entries(text)
    chosen = None
    for part in (wanted or "?").split(">"):
        chosen = _chosen(entries, part.strip())
        if chosen is None:
            return ""
        entries = chosen.children
    while chosen is not None and chosen.children:
        chosen = chosen.children[0]
    return "\n".join(chosen.lines) if chosen is not None else ""


def _chosen(entries: Sequence[_MenuEntry], wanted: str) -> _MenuEntry | None:
    named = next((entry for entry in entries if wanted in entry.names), None)
    if named is None and NUMBER.fullmatch(wanted) and int(wanted) < len(entries):
        return entries[int(wanted)]
    return named


def _entries(text: str) -> list[_MenuEntry]:
    """The entries of a grub.cfg at the top, submenus with theirs."""
    top: list[_MenuEntry] = []
    open_ones: list[tuple[_MenuEntry, int]] = []
    depth = 0
    for line in text.split("\n"):
        stripped = line.strip()
        match = ENTRY.match(line)
        if match and stripped.endswith("{"):
            identifier = ID.search(match[4])
            title = match[1] or match[2] or match[3] or ""
            entry = _MenuEntry((title, identifier[1]) if identifier else (title,))
            (open_ones[-1][0].children if open_ones else top).append(entry)
            open_ones.append((entry, depth))
        elif open_ones:
            open_ones[-1][0].lines.append(line)
        depth += stripped.endswith("{")
        if stripped == "}":
            depth -= 1
            if open_ones and open_ones[-1][1] == depth:
                open_ones.pop()
    return top
