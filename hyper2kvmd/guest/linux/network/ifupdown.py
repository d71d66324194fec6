"""/etc/network/interfaces and the files it sources: only names, because they select cards only by name.

Sources: interfaces(5), vlan-interfaces(5), bridge-utils-interfaces(5), ifenslave's README.Debian.
"""

from __future__ import annotations

import posixpath
import re

from hyper2kvmd.guest.files.tree import TEXT_LIMIT, GuestTree
from hyper2kvmd.guest.linux.network.selector import Choose, Selector, lower_name

MAIN = "/etc/network/interfaces"
MAX_FILES = 256
NAMING = ("auto", "allow-hotplug", "allow-auto", "iface", "mapping")
LOWER = re.compile(r"bond[-_](slaves|primary)|slaves|bridge[-_]ports|vlan[-_]raw[-_]device|physdev")
"""Options of a virtual interface that name the interfaces below it."""
DROP_IN = re.compile(r"[A-Za-z0-9_-]+")
"""Names of files that `source-directory` reads."""


def files(tree: GuestTree) -> list[str]:
    """The main file and all files that it includes, each once."""
    found, pending = dict[str, None](), [MAIN]
    while pending and len(found) < MAX_FILES:
        path = tree.canonical(pending.pop(0))
        if path in found or not tree.is_file(path):
            continue
        found[path] = None
        text = tree.read_text(path) if tree.size(path) <= TEXT_LIMIT else ""  # its visit reports that
        for words in _lines(text):
            if words[0] == "source":
                pending += [match for word in words[1:] for match in tree.glob(posixpath.join("/etc/network", word))]
            elif words[0] == "source-directory":
                folders = [posixpath.join("/etc/network", word) for word in words[1:]]
                pending += [
                    posixpath.join(folder, name)
                    for folder in folders
                    for name in tree.listdir(folder)
                    if DROP_IN.fullmatch(name)
                ]
    return list(found)


def visit(file: str, text: str, choose: Choose) -> str:
    names: dict[str, None] = {}
    for words in _lines(text):
        if words[0] in NAMING:
            named = words[1:2] if words[0] == "iface" else words[1:]
        else:
            named = words[1:] if LOWER.fullmatch(words[0]) else []
        names |= {lower_name(name): None for name in named}
    choose(Selector(file, 0, tuple(names)))
    return text


def _lines(text: str) -> list[list[str]]:
    """Lines of words; a backslash at the end of a line joins it to the next."""
    lines = [line.split() for line in text.replace("\\\n", " ").split("\n")]
    return [words for words in lines if words and not words[0].startswith("#")]
