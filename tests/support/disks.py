"""Real disks for tests: partition tables, file systems and LVM made by the system's own tools."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


def sh(*argv: str | Path, stdin: str | None = None) -> str:
    """Run a tool of the host and return its stdout; its own message is in the error."""
    done = subprocess.run([str(word) for word in argv], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv[0]}: {done.stderr}"
    return done.stdout


class FileReader:
    """A raw file as a block reader."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert offset + length <= self.size, "read past the end of the disk"
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        os.close(self._fd)


@contextlib.contextmanager
def loop(path: Path, *, offset: int = 0, length: int = 0) -> Iterator[str]:
    """A byte range of a file as a loop device."""
    device = sh("losetup", "--show", "-f", "-o", str(offset), "--sizelimit", str(length), path).strip()
    try:
        yield device
    finally:
        sh("losetup", "-d", device)


def empty_disk(path: Path, mebibytes: int) -> Path:
    with path.open("wb") as file:
        file.truncate(mebibytes << 20)
    return path


def blkid(device: str) -> dict[str, str]:
    done = subprocess.run(["blkid", "-p", "-o", "export", device], capture_output=True, text=True, check=False)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
