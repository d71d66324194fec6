"""A disk whose every write is recorded, and what a power cut at any instant would have left of it.

qemu-storage-daemon's `blklogwrites` keeps the log (format: Linux, drivers/md/dm-log-writes.c). The disk is a file of
its FUSE export, below a loop device, so no virtual machine is needed.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30
LOG_MAGIC = 0x6A736677736872
FLUSH, FUA = 1, 2
PATIENCE_SECONDS = 60.0
DISK_SIZE = 64 * MIB
LOG_SIZE = 16 * GIB
"""Sparse."""


@dataclass(frozen=True)
class Entry:
    """A write of `length` bytes at `at`, which are at `data` in the log; or a flush, with length 0."""

    at: int
    data: int
    length: int
    durable: bool
    """Everything before it is on the disk when it is done."""


class RecordedDisk:
    """An ext4 file system of `size` bytes, mounted at `mount`."""

    def __init__(self, folder: Path, *, size: int = DISK_SIZE) -> None:
        self._folder, self._size = folder, size
        self.mount, self._disk, self._log, self._start = (
            folder / name for name in ("disk", "disk.raw", "writes.log", "start.raw")
        )
        self.mount.mkdir()

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record all writes until the end of the block."""
        export = self._folder / "export"
        export.touch()
        _truncate(self._log, LOG_SIZE)
        _truncate(self._disk, self._size)
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self._disk)
        _copy(self._disk, self._start)
        nodes = [
            f"driver=file,node-name=disk,filename={self._disk}",
            f"driver=file,node-name=log,filename={self._log}",
            "driver=blklogwrites,node-name=recorded,file=disk,log=log,log-sector-size=512",
        ]
        argv = ["qemu-storage-daemon", *(word for node in nodes for word in ("--blockdev", node))]
        exported = f"type=fuse,id=export,node-name=recorded,mountpoint={export},writable=on"
        server = subprocess.Popen([*argv, "--export", exported])
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not os.path.ismount(export):
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            with mounted(export, self.mount):
                yield
        finally:
            server.terminate()
            server.wait(PATIENCE_SECONDS)

    def entries(self) -> list[Entry]:
        """The log so far."""
        found: list[Entry] = []
        position = 512
        with self._log.open("rb") as log:
            assert struct.unpack("<Q", log.read(8))[0] == LOG_MAGIC
            while True:
                log.seek(position)
                sector, sectors, flags, _ = struct.unpack("<4Q", log.read(32))
                if not (sectors or flags):
                    return found
                found.append(Entry(sector * 512, position + 512, sectors * 512, bool(flags & (FLUSH | FUA))))
                position += 512 + sectors * 512

    def cut(self, entries: list[Entry], number: int, chance: random.Random) -> None:
        """Make the disk what a cut before entry `number` leaves: flushed writes, and any of those after them."""
        last = max((index for index, one in enumerate(entries[:number]) if one.durable), default=-1)
        _copy(self._start, self._disk)
        with self._log.open("rb") as log, self._disk.open("r+b") as disk:
            for index, one in enumerate(entries[:number]):
                if index <= last or chance.random() < 0.5:
                    log.seek(one.data)
                    disk.seek(one.at)
                    disk.write(log.read(one.length))

    @contextmanager
    def repaired(self) -> Iterator[None]:
        """The disk after a cut, checked and mounted as a booting host does."""
        done = subprocess.run(["fsck.ext4", "-fp", self._disk], capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stdout
        with mounted(self._disk, self.mount):
            yield


@contextmanager
def mounted(file: Path, place: Path) -> Iterator[None]:
    """The file system in this file. Nothing of it is mounted or attached afterwards."""
    loop = _run("losetup", "--find", "--show", file).strip()
    try:
        _run("mount", loop, place)
        try:
            yield
        finally:
            _run("umount", place)
    finally:
        _run("losetup", "--detach", loop)


def _truncate(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    _run("cp", "--sparse=always", source, target)


def _run(*argv: str | Path) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout
