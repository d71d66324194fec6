"""Conditions of the host that a test changes while the daemon runs: its wall clock, and I/O errors (conditions.c)."""

from __future__ import annotations

import mmap
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
FORM = struct.Struct("=qii512s")


class Conditions:
    """At first, all is as it is."""

    def __init__(self, folder: Path) -> None:
        self._library, path = folder / "conditions.so", folder / "conditions"
        argv = ["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(argv, check=True)
        path.write_bytes(bytes(FORM.size))
        self._path = path
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), FORM.size)

    @property
    def environment(self) -> Mapping[str, str]:
        """Of a process that has them."""
        return {"LD_PRELOAD": str(self._library), "H2K_CONDITIONS": str(self._path)}

    def set(self, *, clock: int = 0, error: int = 0, below: Path = Path("/"), only_writes: bool = False) -> None:
        """`clock`: seconds that the wall clock is ahead. `error`: errno of calls `below` a directory."""
        self._shared[:] = FORM.pack(clock, 0, only_writes, str(below).encode())
        self._shared[:] = FORM.pack(clock, error, only_writes, str(below).encode())
