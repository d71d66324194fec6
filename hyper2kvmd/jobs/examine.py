"""Whether a SQLite file is damaged on the disk, as a process of its own finds (`sqlite_tool.py`)."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host import run

PROGRAM = "hyper2kvmd.jobs.sqlite_tool"


@dataclass(frozen=True)
class Finding:
    """Both are empty for a file that is whole."""

    damage: tuple[str, ...] = ()
    fault: str = ""
    """Why the file could not be examined: the file system, or a lock of another program."""


def examine(path: Path, check: Literal["quick_check", "integrity_check"] = "quick_check") -> Finding:
    """Read the file from the disk, not from the page cache, and check it."""
    return _ask(check, path)


def back_up(path: Path, place: Path) -> Finding:
    """Write a checked copy to `place`, unless something is found. Other processes may use the database meanwhile."""
    return _ask("backup", path, place)


def _ask(verb: str, *paths: Path) -> Finding:
    command = [sys.executable, "-I", "-m", PROGRAM, str(os.getpid()), verb, *map(str, paths)]
    try:
        ended = run.run(command, check=False)
        answer = json.loads(ended.stdout)
    except MigrationFailed as failure:
        return Finding(fault=failure.message)
    except ValueError:
        last = (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1]
        return Finding(fault=f"the check did not finish: {last}")
    return Finding(tuple(answer.get("damage", ())), answer.get("fault", ""))
