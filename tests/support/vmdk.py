"""VMDKs of every form, and what QEMU sees in them."""

from __future__ import annotations

import random
import re
from pathlib import Path

from tests.support.disks import sh

SUBFORMATS = ["monolithicSparse", "streamOptimized", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"]


GRAIN = 65536


def full(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311


def mixed(size: int) -> bytes:
    """Random, repetitive and no data, a grain each, in a random order."""
    choice = random.Random(size)  # noqa: S311
    kinds = [lambda: choice.randbytes(GRAIN), lambda: b"text" * (GRAIN // 4), lambda: bytes(GRAIN)]
    return b"".join(choice.choice(kinds)() for _ in range(-(-size // GRAIN)))[:size]


def make(folder: Path, subformat: str, data: bytes, size: int, name: str = "disk.vmdk") -> Path:
    raw = folder / "raw"
    raw.write_bytes(data)
    with raw.open("r+b") as file:
        file.truncate(size)
    sh("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, folder / name)
    raw.unlink()
    return folder / name


def seen_by_qemu(path: Path) -> bytes:
    raw = path.with_name("seen.raw")
    sh("qemu-img", "convert", "-f", "vmdk", "-O", "raw", path, raw)
    data = raw.read_bytes()
    raw.unlink()
    return data


def child_of(parent: Path, name: str, *writes: str, size: int | None = None) -> Path:
    """A snapshot made by qemu-img, into which qemu-io writes."""
    path = parent.with_name(name)
    create = ["qemu-img", "create", "-q", "-f", "vmdk", "-o", "zeroed_grain=on", "-b", parent.name, "-F", "vmdk"]
    sh("env", "-C", parent.parent, *create, name, *([str(size)] if size else []))
    for write in writes:
        sh("qemu-io", "-f", "vmdk", "-c", write, path)
    return path


def cid_of(path: Path) -> str:
    found = re.search(rb"\nCID=([0-9a-f]+)", path.read_bytes()[:8192])
    assert found
    return found[1].decode()
