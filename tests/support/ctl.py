"""h2kvmctl, as a user calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from hyper2kvmd.config import DEFAULT_PATH

PROJECT = Path(__file__).parents[2]


MOUNTED = 'while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done; shift; exec "$@"'


def ctl(
    *arguments: str | Path, cwd: Path, mounts: Mapping[Path, Path] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """`mounts` are what it sees in the place of other files and folders, each by its path; nobody else does."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONPATH": str(PROJECT), "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-m", "hyper2kvmd.cli.ctl", *map(str, arguments)]
    if mounts:
        pairs = [str(path) for place, seen in mounts.items() for path in (seen, place)]
        command = ["unshare", "--mount", "sh", "-ec", MOUNTED, "sh", *pairs, "--", *command]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=60, check=False)


@contextmanager
def configured(folder: Path, **keys: Path) -> Iterator[dict[Path, Path]]:
    """Mounts for `ctl` that show the configuration of a daemon; `folder` gets it."""
    made = not DEFAULT_PATH.parent.exists()
    DEFAULT_PATH.parent.mkdir(exist_ok=True)
    etc = folder / "etc"
    etc.mkdir()
    (etc / DEFAULT_PATH.name).write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
    yield {DEFAULT_PATH.parent: etc}
    if made:
        DEFAULT_PATH.parent.rmdir()
