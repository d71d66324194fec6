"""The blocks of the documentation that tests run.

A comment above a fence marks it; GitHub and the site show no comments. `<!-- run: here -->` is for a shell block that
runs in a sandbox, `<!-- run: server -->` for one that needs an installed server, and `<!-- file: NAME -->` for a file
of the blocks below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).resolve().parents[2]
MARKED = re.compile(r"^<!-- (run|file): (\S+) -->\n+```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (run|file):")


@dataclass(frozen=True)
class Block:
    kind: Literal["here", "server", "file"]
    text: str
    name: str = ""
    """Of a file."""


def pages() -> list[Path]:
    """README and every page of docs/."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The marked blocks of this page, in their order."""
    return list(_blocks(page.read_text()))


def _blocks(text: str) -> Iterator[Block]:
    for what, value, _language, content in MARKED.findall(text):
        if what == "file":
            yield Block("file", content, value)
        elif value == "here":
            yield Block("here", content)
        elif value == "server":
            yield Block("server", content)
        else:
            raise ValueError(f"a block runs here or on a server, not {value}")


def of_server() -> dict[str, list[str]]:
    """Blocks for a host on which the package is installed, by page: root runs them, in this order."""
    found = {str(page.relative_to(REPOSITORY)): blocks(page) for page in pages()}
    by_page = {page: [block.text for block in marked if block.kind == "server"] for page, marked in found.items()}
    return {page: texts for page, texts in by_page.items() if texts}
