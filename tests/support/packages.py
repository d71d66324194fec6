"""Packages as the scripts of packaging/ build them."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from pathlib import Path

from tests.support.host import REPOSITORY

ENVIRONMENT = {**os.environ, "DPKG_DEB_COMPRESSOR_LEVEL": "0", "LC_ALL": "C.UTF-8"}
"""A package that lives as long as its test need not be small."""
PATIENCE = 900
"""Seconds until a build is called a failure."""
BUILDING = REPOSITORY / ".cache" / "building.lock"
"""One build at a time: they share a folder."""


def built(*argv: str | Path) -> tuple[Path, ...]:
    """The packages that a command says it has put into dist/: another process may have put others there meanwhile."""
    BUILDING.parent.mkdir(exist_ok=True)
    with BUILDING.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # mmdebstrap gives to stderr what its hooks print
        done = subprocess.run(
            argv,
            cwd=REPOSITORY,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    packages = tuple(REPOSITORY / name for name in re.findall(r" -> '(dist/[^']+)'$", done.stdout, re.MULTILINE))
    assert packages, done.stdout
    return packages
