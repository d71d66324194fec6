"""Registry hives, filled by hivexregedit."""

from __future__ import annotations

from pathlib import Path

from tests.support.disks import sh
from tests.support.hives import hive


def make_hive(path: Path, reg_text: str) -> None:
    """A clean hive with these keys."""
    path.write_bytes(hive({}))
    merge(path, reg_text)


def merge(path: Path, reg_text: str) -> None:
    sh("hivexregedit", "--merge", path, stdin=reg_text)
