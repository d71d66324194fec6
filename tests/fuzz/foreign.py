"""Damages headers and tables of QCOW2, VDI, VHD and VHDX files: each must be described or refused, soon.

No tool is started: this is about what runs before one may. `python -m tests.fuzz.foreign --count 20000`; what it finds
it prints with the seed that makes it again: `--seed N --count 1`.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from hyper2kvmd.disk.faults import LARGEST_DISK
from hyper2kvmd.disk.files import open_file
from hyper2kvmd.disk.sources.block_map.crc32c import crc32c
from hyper2kvmd.disk.sources.block_map.source import READERS, BlockMapFormat, BlockMapSource
from hyper2kvmd.disk.sources.foreign.qcow2 import read_qcow2
from hyper2kvmd.errors import Failure
from tests.fuzz import harness
from tests.fuzz.harness import NUMBERS

MIB = 1 << 20
ForeignFormat = BlockMapFormat | Literal["qcow2"]
PLACES: dict[ForeignFormat, tuple[tuple[int, int], ...]] = {
    "qcow2": ((0, 128), (0, 1024)),
    "vdi": ((0x40, 0x1C8), (0x200, 0x240)),
    "vhd": ((0, 96), (512, 600), (1536, 1600), (-512, -416)),
    "vhdx": ((64 << 10, (64 << 10) + 80), (128 << 10, (128 << 10) + 80), (192 << 10, (192 << 10) + 80)),
}
"""Where the numbers are that decide; VHDX has its metadata and its table wherever these say."""
SEALED = ((64 << 10, 4 << 10), (128 << 10, 4 << 10), (192 << 10, 64 << 10), (256 << 10, 64 << 10))
"""Stretches of a VHDX with a checksum of their own."""
VHD_SEALED = ((0, 512, 64), (512, 1024, 36), (-512, 512, 64))
"""Those of a VHD: start, length, place of the checksum."""


def samples() -> dict[ForeignFormat, bytes]:
    """A sound disk of each format, of a few MiB."""
    made: dict[ForeignFormat, bytes] = {}
    kinds: tuple[tuple[ForeignFormat, str], ...] = (
        ("qcow2", "cluster_size=64k"),
        ("vdi", "static=off"),
        ("vhd", "force_size=on"),
        ("vhdx", "block_size=1M"),
    )
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "raw")
        raw.write_bytes(b"some text " * 400_000 + bytes(1 << 20) + b"the end")
        os.truncate(raw, 6 * MIB + 512)
        for fmt, options in kinds:
            path = Path(folder, fmt)
            argv = [
                "qemu-img",
                "convert",
                "-f",
                "raw",
                "-O",
                "vpc" if fmt == "vhd" else fmt,
                "-o",
                options,
                str(raw),
                str(path),
            ]
            subprocess.run(argv, check=True)
            made[fmt] = path.read_bytes()
    return made


def damage(fmt: ForeignFormat, data: bytes, pick: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(pick.choice((1, 1, 2, 4))):
        at = _place(fmt, changed, pick)
        order = ">" if fmt in ("qcow2", "vhd") else "<"
        match pick.randrange(6):
            case 0 | 1:
                changed[at : at + 4] = struct.pack(f"{order}I", pick.choice((*NUMBERS, pick.getrandbits(32))))
            case 2:
                number = pick.choice((*NUMBERS, pick.getrandbits(64))) << pick.choice((0, 0, 20, 32)) & (1 << 64) - 1
                changed[at : at + 8] = struct.pack(f"{order}Q", number)
            case 3 | 4:
                changed[at] ^= 1 << pick.randrange(8)
            case 5:
                if pick.randrange(4) == 0:
                    del changed[max(at, 1) :]
                else:
                    changed[at : at + 16] = pick.randbytes(16)
        if len(changed) < len(data):
            break
    if fmt == "vhdx" and pick.randrange(8):
        seal(changed)
    if fmt == "vhd" and pick.randrange(8):
        seal_vhd(changed)
    return bytes(changed)


def seal(data: bytearray) -> None:
    """Checksums as they should be: else only they would be tested."""
    for at, length in SEALED:
        if len(data) >= at + length:
            data[at + 4 : at + 8] = bytes(4)
            data[at + 4 : at + 8] = struct.pack("<I", crc32c(data[at : at + length]))


def seal_vhd(data: bytearray) -> None:
    for start, length, checksum in VHD_SEALED:
        at = start % len(data)
        place = slice(at + checksum, at + checksum + 4)
        if len(data) >= at + length:
            data[place] = bytes(4)
            data[place] = struct.pack(">I", ~sum(data[at : at + length]) & 0xFFFFFFFF)


def _place(fmt: ForeignFormat, data: bytearray, pick: random.Random) -> int:
    places = PLACES[fmt]
    if fmt == "vhdx" and pick.randrange(2):
        begin = pick.choice((MIB, 2 * MIB, 2 * MIB + (64 << 10), 3 * MIB))
        places = ((begin, begin + 128),)
    begin, end = pick.choice(places)
    return min(pick.randrange(begin, end) % len(data), len(data) - 1)


def describe(path: Path, fmt: ForeignFormat) -> None:
    """Read what runs without a tool, and ensure on what it promises."""
    file = open_file(path)
    try:
        disk = read_qcow2(file) if fmt == "qcow2" else BlockMapSource(READERS[fmt](file), fmt)
        assert 0 < disk.virtual_size <= LARGEST_DISK
        assert disk.virtual_size % 512 == 0
        assert disk.subformat.isprintable()
        if not isinstance(disk, BlockMapSource):
            return  # its tables are QEMU's
        last = 0
        for run in disk.runs(0, disk.virtual_size):
            assert last <= run.guest < run.guest + run.length <= disk.virtual_size
            assert 0 <= run.offset <= file.size - run.length
            last = run.guest + run.length
        assert 0 <= disk.data_bytes <= disk.virtual_size
    finally:
        os.close(file.fd)


def attempt(seed: int, corpus: dict[ForeignFormat, bytes], folder: Path) -> str:
    """Damage one sample and read it; what came of it. Raises whatever is not a Failure."""
    pick = random.Random(seed)  # noqa: S311
    fmt = pick.choice(sorted(corpus))
    path = folder / f"disk.{fmt}"
    path.write_bytes(damage(fmt, corpus[fmt], pick))
    try:
        describe(path, fmt)
    except Failure as failure:
        if not str(failure).isprintable():
            raise ValueError(f"not one plain line: {failure!r}") from failure
        return failure.code
    return "described"


def fuzz(seed: int, count: int) -> harness.Outcome:
    corpus = samples()
    return harness.fuzz(lambda number, folder: attempt(number, corpus, folder), seed, count)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, fuzz, count=20_000))
