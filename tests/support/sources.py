"""Sources of the copy engine made of plain files, its targets, and what they should become."""

from __future__ import annotations

import errno
import os
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hyper2kvmd.disk.blocks import Run
from hyper2kvmd.disk.image_file import ImageFile
from hyper2kvmd.disk.images.qcow2 import Qcow2Writer
from hyper2kvmd.disk.images.raw import RawWriter

Kind = Literal["qcow2", "compressed", "raw"]
KINDS: tuple[Kind, ...] = ("qcow2", "compressed", "raw")


def make_target(kind: str, path: Path, virtual_size: int) -> ImageFile:
    return (
        RawWriter(path, virtual_size)
        if kind == "raw"
        else Qcow2Writer(path, virtual_size, compress=kind == "compressed")
    )


def content(seed: int, length: int) -> bytes:
    """The same for the same seed; compresses a little, and no cluster of it is zeros."""
    pick = random.Random(seed)  # noqa: S311 - only to be unlike its neighbours
    return b"".join(pick.randbytes(256) + bytes([1 + seed % 255]) * 256 for _ in range(length // 512))


class RawSource:
    """A raw file as it lies: its data runs, found by SEEK_DATA, are stored bytes."""

    def __init__(self, path: Path, virtual_size: int | None = None) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.virtual_size = virtual_size or os.fstat(self._fd).st_size
        self.data_bytes = sum(run.length for run in self.runs(0, self.virtual_size))

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        at, end = 0, os.fstat(self._fd).st_size
        while at < min(stop, end):
            try:
                data = os.lseek(self._fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            at = os.lseek(self._fd, data, os.SEEK_HOLE)
            if start <= data < stop:
                yield Run(data, at - data, self._fd, data)

    def load(self, run: Run) -> bytes:
        return os.pread(self._fd, run.length, run.offset)

    def close(self) -> None:
        os.close(self._fd)


@dataclass(frozen=True)
class Part:
    """Guest bytes that a made source holds; `packed` ones are stored deflated."""

    guest: int
    data: bytes
    packed: bool


class MadeSource:
    """Any extents at all: parts in guest order, each stored `gap` bytes after the one before."""

    def __init__(self, path: Path, virtual_size: int, parts: Sequence[Part], gap: int = 0) -> None:
        self.virtual_size = virtual_size
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._runs: list[Run] = []
        self._sizes: dict[int, int] = {}
        at = 0
        for part in parts:
            at += gap
            stored = zlib.compress(part.data, 1) if part.packed else part.data
            os.pwrite(self._fd, stored, at)
            self._runs.append(Run(part.guest, len(part.data), self._fd, at, part.packed))
            self._sizes[part.guest] = len(stored)
            at += len(stored)
        self.data_bytes = sum(len(part.data) for part in parts)

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        yield from (run for run in self._runs if start <= run.guest < stop)

    def load(self, run: Run) -> bytes:
        return zlib.decompress(os.pread(self._fd, self._sizes[run.guest], run.offset))

    def close(self) -> None:
        os.close(self._fd)


def write_raw(path: Path, virtual_size: int, parts: Sequence[Part]) -> Path:
    """What a guest should read of a MadeSource."""
    with path.open("wb") as file:
        file.truncate(virtual_size)
        for part in parts:
            file.seek(part.guest)
            file.write(part.data)
    return path
