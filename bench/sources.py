"""The disks that are converted, made by recipe and kept in a cache folder.

Content comes from this host's /usr: its binaries and its texts. Each pass over them uses another permutation of the
byte values: the data is new, but compresses as well. Data that does not compress comes from a seeded generator. Files
lie at multiples of 4 KiB, in groups spread over the disk, as an aged file system has it.
"""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import in_a_child, sh

GIB = 1 << 30
MIB = 1 << 20
BLOCK = 4096
FIRST = MIB
"""The first byte of data, as of a partition: a raw file that begins with a program is refused."""
GROUP = 64 * MIB
"""Bytes of data between two holes."""
READ_LIMIT = 8 * MIB
"""Bytes taken of one file, so that no single one is a tenth of the disk."""
MIX = (("binary", 50), ("text", 40), ("random", 10))
"""Shares of the data, in percent."""
RECIPE = 2
"""Raised when the bytes change: images of another recipe are not reused."""


@dataclass(frozen=True)
class Disk:
    """A virtual disk of `size` bytes with `data` bytes spread over it."""

    size: int
    data: int

    @property
    def name(self) -> str:
        return f"{self.size // GIB}g-{self.data // MIB}m-r{RECIPE}"

    def __str__(self) -> str:
        size = f"{self.size // GIB} GiB" if self.size < 1 << 40 else f"{self.size >> 40} TiB"
        return f"{size} virtual, {self.data / 1e9:.1f} GB of data"


def raw(disk: Disk, folder: Path) -> Path:
    """The disk as a raw file with holes."""
    path = folder / f"{disk.name}.raw"
    if path.exists():
        return path
    partial = path.with_suffix(".partial")
    in_a_child(lambda: _write(disk, partial))
    return partial.rename(path)


def _write(disk: Disk, path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(disk.size)
        groups = -(-disk.data // GROUP)
        distance = disk.size // groups // BLOCK * BLOCK
        left, written = disk.data, 0
        for content in _content():
            group, inside = divmod(written, GROUP)
            file.seek(FIRST + group * distance + inside)
            piece = content[: min(left, GROUP - inside)]
            file.write(piece)
            taken = -(-len(piece) // BLOCK) * BLOCK
            written, left = written + taken, left - taken
            if left <= 0:
                break
        file.flush()
        os.fsync(file.fileno())


def image(disk: Disk, folder: Path, fmt: str, options: str = "", *, place: Path | None = None) -> Path:
    """The disk as qemu-img writes it in another format; in `place` instead of the cache when that is given."""
    kind = options.partition("subformat=")[2] or fmt
    target = (place or folder) / f"{disk.name}.{kind}" / f"disk.{fmt}"
    if target.exists():
        return target
    target.parent.mkdir(exist_ok=True)
    partial = target.with_name("disk.partial")
    for left_over in target.parent.iterdir():
        left_over.unlink()
    argv = ["qemu-img", "convert", "-m", "16", "-W", "-f", "raw", "-O", fmt]
    argv += ["-o", options] if options else []
    if kind == "streamOptimized":
        argv.remove("-W")  # its grains have to come in order
    if kind == "monolithicFlat":
        sh(*argv, raw(disk, folder), target)  # its extent is named after it
    else:
        sh(*argv, raw(disk, folder), partial)
        partial.rename(target)
    return target


def files_of(image_file: Path) -> list[Path]:
    """The files that an image consists of: each image has a folder of its own."""
    return sorted(image_file.parent.iterdir()) if image_file.suffix != ".raw" else [image_file]


def _content() -> Iterator[bytes]:
    """Endless, the same on the same host: one file's bytes after the other, mixed by MIX."""
    streams = {
        "binary": _varied("/usr/lib", "/usr/bin", "/usr/sbin", text=False),
        "text": _varied("/usr/share", "/usr/lib", text=True),
        "random": _noise(),
    }
    given = dict.fromkeys(streams, 0)
    while True:
        kind = min(MIX, key=lambda share: given[share[0]] / share[1])[0]
        content = next(streams[kind])
        given[kind] += len(content)
        yield content


def _varied(*folders: str, text: bool) -> Iterator[bytes]:
    found = [path for folder in folders for path in _files(Path(folder))]
    for number in range(1 << 16):
        values = list(range(256))
        if number:
            random.Random(number).shuffle(values)  # noqa: S311 - makes test data
        table = bytes(values)
        usable = 0
        for path in found:
            with path.open("rb") as file:
                content = file.read(READ_LIMIT)
            if (b"\0" not in content[:4096]) == text:
                usable += 1
                yield content.translate(table)
        if not usable:
            raise SystemExit(f"bench: no usable files below {', '.join(folders)}")


def _files(folder: Path) -> Iterator[Path]:
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(base, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_size >= BLOCK:
                yield path


def _noise() -> Iterator[bytes]:
    for number in range(1 << 40):
        yield hashlib.shake_256(number.to_bytes(8, "big")).digest(MIB)


def ova(disk: Disk, folder: Path) -> Path:
    """The disk as a streamOptimized VMDK in an OVA."""
    path = folder / f"{disk.name}.ova"
    if not path.exists():
        vmdk = image(disk, folder, "vmdk", "subformat=streamOptimized")
        partial = path.with_suffix(".partial")
        sh("tar", "-C", vmdk.parent, "--format=ustar", "-cf", partial, vmdk.name)
        partial.rename(path)
    return path
