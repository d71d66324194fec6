"""Damages small VMDKs of every kind, again and again: each must give bytes or a failure, soon and in little memory.

Of some that give bytes QEMU is asked as well: it must read the same, or a rule of `second_opinion.py` says why not.

`python -m tests.fuzz.vmdk --count 100000` takes some minutes. What it finds it prints with the seed that makes it
again: `--seed N --count 1`.
"""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.disk.blocks import RUN_LIMIT
from hyper2kvmd.disk.faults import LARGEST_DISK
from hyper2kvmd.errors import Failure
from tests.fuzz import harness
from tests.fuzz.harness import NUMBERS
from tests.fuzz.second_opinion import LARGEST, second_opinion
from tests.support.vmdk_images import Grains, cowd, descriptor, hosted, sesparse, stream, vmdk_source

ASKED = 10
"""QEMU is asked about each seed that is a multiple of this: a process takes as long as fifty attempts."""
SUBFORMATS = ("monolithicSparse", "streamOptimized", "monolithicFlat", "twoGbMaxExtentSparse")
WORDS = (
    b"RW ", b"FLAT", b"ZERO", b"SPARSE", b"VMFSSPARSE", b"SESPARSE", b"NOACCESS ", b"\n", b'"', b"99999999999", b"0",
    b"../", b"parentCID=", b"ffffffff", b'parentFileNameHint="base.vmdk"\n', b"createType=", b"\0", b"\xff",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """A sound disk: its files by name; the one to open is `disk.vmdk`."""

    name: str
    files: dict[str, bytes]


def samples() -> tuple[Sample, ...]:
    """One of every kind that is read, by qemu-img or by hand, most of them under 500 KiB."""
    text = b"some text " * 6553 + b"123456"
    noise = random.Random(1).randbytes(8192)  # noqa: S311
    grains: Grains = {0: noise, 1: b"x" * 4096, 3: noise[::-1], 40: text[:4096]}
    large: Grains = {0: text, 1: noise * 8, 5: text}
    child: Grains = {0: noise[:4096], 1: None, 17: b"y" * 4096}
    sparse_child = hosted(child, 80, grain=8, parent=("fffffffe", "base.vmdk")).data
    capacity = 128 * 6 + 3
    made = [
        Sample("hosted", {"disk.vmdk": hosted(large, capacity).data}),
        Sample("small grains", {"disk.vmdk": hosted(child, 8 * 90, grain=8, per_table=64).data}),
        Sample("packed", {"disk.vmdk": hosted(large, capacity, packed=True).data}),
        Sample("unmarked", {"disk.vmdk": hosted(large, capacity, packed=True, marked=False).data}),
        Sample("stream", {"disk.vmdk": stream(large, capacity)}),
        Sample("chain", {"disk.vmdk": sparse_child, "base.vmdk": stream(large, capacity)}),
        Sample(
            "cowd",
            {
                "disk-delta.vmdk": cowd({n: (d or b"")[:512] for n, d in grains.items()}, 4103),
                "disk.vmdk": descriptor("vmfsSparse", 'RW 4103 VMFSSPARSE "disk-delta.vmdk"'),
            },
        ),
        Sample(
            "sesparse",
            {
                "s.vmdk": sesparse({**grains, 4: None}, 331, unmapped=9),
                "disk.vmdk": descriptor("seSparse", 'RW 331 SESPARSE "s.vmdk"', parent=("fffffffe", "base.vmdk")),
                "base.vmdk": hosted(large, capacity).data,
            },
        ),
        Sample(
            "mixed",
            {
                "a": noise,
                "b": hosted(large, capacity, alone=False).data,
                "disk.vmdk": descriptor(
                    "twoGbMaxExtentSparse", 'RW 9 FLAT "a" 3', "RW 100 ZERO", f'RW {capacity} SPARSE "b"'
                ),
            },
        ),
    ]
    return (*made, *(_by_qemu_img(subformat, text * 2 + noise) for subformat in SUBFORMATS))


def _by_qemu_img(subformat: str, data: bytes) -> Sample:
    with tempfile.TemporaryDirectory() as folder:
        raw, disk = Path(folder, "raw"), Path(folder, "disk.vmdk")
        raw.write_bytes(data)
        options = ["-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}"]
        subprocess.run(["qemu-img", "convert", *options, str(raw), str(disk)], check=True)
        raw.unlink()
        return Sample(subformat, {path.name: path.read_bytes() for path in Path(folder).iterdir()})


def damage(data: bytes, pick: random.Random) -> bytes:
    """One to four changes where they hurt: numbers in headers and tables, words in descriptors, bits, the length."""
    changed = bytearray(data)
    for _ in range(pick.choice((1, 1, 1, 2, 4))):
        at = _place(changed, pick)
        match pick.randrange(8):
            case 0 | 1:
                changed[at : at + 4] = struct.pack("<I", _number(len(changed), pick))
            case 2:
                changed[at : at + 8] = struct.pack("<Q", _number(len(changed), pick) << pick.choice((0, 0, 32)))
            case 3 | 4:
                if at < len(changed):
                    changed[at] ^= 1 << pick.randrange(8)
            case 5:
                word = pick.choice(WORDS)
                changed[at : at + pick.choice((0, len(word)))] = word
            case 6:
                length, source = pick.choice((4, 64, 512, 4096)), _place(changed, pick)
                changed[at : at + length] = changed[source : source + length]
            case 7:
                if pick.randrange(4) == 0:
                    del changed[at:]
                else:
                    changed[at : at + pick.choice((8, 512, 65536))] = b""
    return bytes(changed)


def _place(data: bytearray, pick: random.Random) -> int:
    size = max(1, len(data))
    match pick.randrange(8):
        case 0:
            return pick.randrange(min(80, size))
        case 1:
            return pick.randrange(min(1024, size))
        case 2 | 3:
            return pick.randrange(max(0, size - 8192), size)
        case 4 | 5 | 6:
            filled = [at for at in range(0, min(size, 65536), 4) if any(data[at : at + 4])]
            return pick.choice(filled or [0])
        case _:
            return pick.randrange(size)


def _number(size: int, pick: random.Random) -> int:
    near = size // 512 + pick.randrange(-3, 4)
    return pick.choice((*NUMBERS, max(0, near), pick.getrandbits(32), pick.randrange(1024)))


def read_all(path: Path) -> int:
    """Read what there is, and ensure on what `open_source` promises of it; the disk's size."""
    with vmdk_source(path) as source:
        assert 0 < source.virtual_size <= LARGEST_DISK
        at = covered = 0
        for run in source.runs(0, source.virtual_size):
            assert at <= run.guest and 0 < run.length <= RUN_LIMIT and run.offset >= 0
            at = run.guest + run.length
            assert at <= source.virtual_size
            assert len(source.load(run)) == run.length
            covered += run.length
        assert covered == source.data_bytes
        return source.virtual_size


def attempt(seed: int, corpus: tuple[Sample, ...], folder: Path) -> str:
    """Damage one sample and read it; what came of it. Raises whatever is not a Failure."""
    pick = random.Random(seed)  # noqa: S311
    sample = pick.choice(corpus)
    victim = pick.choice(sorted(sample.files))
    for old in folder.iterdir():
        old.unlink()
    for name, data in sample.files.items():
        (folder / name).write_bytes(damage(data, pick) if name == victim else data)
    try:
        size = read_all(folder / "disk.vmdk")
    except Failure as failure:
        if not str(failure).isprintable():
            raise ValueError(f"not one plain line: {failure!r}") from failure
        return failure.code
    if seed % ASKED == 0 and size <= LARGEST:
        return second_opinion(folder / "disk.vmdk")
    return "bytes"


def fuzz(seed: int, count: int) -> harness.Outcome:
    corpus = samples()
    return harness.fuzz(lambda number, folder: attempt(number, corpus, folder), seed, count)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, fuzz, count=100_000))
