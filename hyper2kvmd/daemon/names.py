"""Names of the files in the spool: as they were dropped, while they are claimed, and those that are no submissions."""

from __future__ import annotations

import re
import stat
from pathlib import Path

SUFFIXES = (".yaml", ".yml")
REASON, RESULT, RESULT_TEXT = ".reason.json", ".result.json", ".result.md"
OUTCOME_SUFFIXES = (REASON, RESULT, RESULT_TEXT)
"""What an outcome has after the name of its YAML."""
MAX_NAME = 180
"""Bytes of a file name that are kept: room for our own additions within the 255 of a file system."""


def reason_to_ignore(name: str, mode: int) -> str | None:
    """Why the file with this name and mode is no submission; None if it is one."""
    if name.startswith("."):
        return "its name begins with a dot"
    if not name.lower().endswith(SUFFIXES):
        return f"its name does not end in {' or '.join(SUFFIXES)}"
    return "it is a directory" if stat.S_ISDIR(mode) else None


def kept(name: str) -> str:
    """The file name for the spool: printable, valid UTF-8, and short enough for our additions."""
    text = name.encode(errors="surrogateescape").decode(errors="replace")
    text = "".join(letter if letter.isprintable() else "_" for letter in text)
    path = Path(text)
    room = MAX_NAME - len(path.suffix.encode())
    return path.stem.encode()[:room].decode(errors="ignore") + path.suffix


def original(name: str) -> str:
    """The name under which a claimed file was dropped."""
    return re.sub("^[0-9a-f]{12}[.]", "", name)


def yaml_name(name: str) -> str:
    """The name of the YAML that an outcome belongs to; `name` itself if it is no outcome."""
    return next((name.removesuffix(suffix) for suffix in OUTCOME_SUFFIXES if name.endswith(suffix)), name)
