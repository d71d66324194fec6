"""Damages tar and ZIP archives, compressed ones too, and manifests: each must be read or refused, soon and in little
memory.

What is accepted names files of the archive only, apart from each other. `python -m tests.fuzz.archives --count 100000`;
what it finds it prints with the seed that makes it again: `--seed N --count 1`.
"""

from __future__ import annotations

import os
import random
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from hyper2kvmd.disk.files import SourceFile, open_file
from hyper2kvmd.errors import Failure
from hyper2kvmd.machines.archives import tar, zip  # noqa: A004 - the format
from hyper2kvmd.machines.archives.streams import Plain, Unpacked, compression_of
from hyper2kvmd.machines.manifest import HEX_DIGITS, parse_manifest
from tests.fuzz import harness
from tests.support import archives
from tests.support.archives import Entry, pax
from tests.support.ova import COMPRESS, as_zip, manifest

BLOCK = 512
SIZES = (
    *(b"00000000000\0", b"77777777777\0", b"\x80" + b"\0" * 10 + b"\1"),
    *(b"\xff" * 12, b"\x80" + b"\xff" * 11, b" " * 12),
)
KINDS = (b"0", b"1", b"2", b"3", b"5", b"7", b"9", b"x", b"g", b"L", b"K", b"S", b"V")
FILES = {"web01.ovf": b"<Envelope/>" * 20, "web01-disk1.vmdk": b"KDMV" + bytes(900), "web01.mf": b"SHA256"}
PLAIN = tuple(Entry(name, data) for name, data in FILES.items())


def samples(folder: Path) -> tuple[bytes, ...]:
    tars = (
        archives.tar(*PLAIN),
        archives.tar(*(Entry(one.name, one.data, base256=True, magic=b"ustar  \0") for one in PLAIN)),
        archives.tar(pax([("path", "x" * 200), ("size", "11")]), Entry("short", b"<Envelope/>"), *PLAIN),
        archives.tar(Entry("././@LongLink", b"x" * 200 + b"\0", b"L"), Entry("short", b"1"), *PLAIN),
        archives.tar(Entry("export/", kind=b"5"), Entry("._a", b"mac"), Entry("a", b"1", prefix=b"export")),
    )
    packed = tuple(pack(tars[0]) for pack in COMPRESS.values())
    zips = (as_zip(folder / "a", FILES), as_zip(folder / "b", FILES, zipfile.ZIP_DEFLATED))
    return (*tars, *packed, *(path.read_bytes() for path in zips), manifest(FILES), manifest(FILES, "sha512"))


def damage(data: bytes, pick: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(pick.choice((1, 1, 2, 4))):
        at = pick.randrange(len(changed) + 1)
        header = at // BLOCK * BLOCK
        match pick.randrange(7):
            case 0:
                changed[at : at + 1] = bytes([pick.randrange(256)])
            case 1:
                changed[at : at + 4] = pick.choice(harness.NUMBERS).to_bytes(4, "little", signed=False)
            case 2:
                del changed[at : at + pick.choice((1, 12, BLOCK))]
            case 3:
                changed[at:at] = changed[at : at + pick.choice((1, 100, BLOCK))] * pick.choice((1, 2, 50))
            case 4:
                changed[header + 124 : header + 136] = pick.choice(SIZES)
            case 5:
                changed[header + 156 : header + 157] = pick.choice(KINDS)
            case 6:
                del changed[at:]
    if pick.randrange(4):
        _sum_again(changed)
    return bytes(changed)


def _sum_again(data: bytearray) -> None:
    """Headers of a tar get their sums back, or little behind them would be reached."""
    for at in range(0, len(data) - BLOCK + 1, BLOCK):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])


def attempt(seed: int, corpus: tuple[bytes, ...], folder: Path) -> str:
    pick = random.Random(seed)  # noqa: S311
    data = damage(pick.choice(corpus), pick)
    for digests in parse_manifest(data).digests.values():
        assert all(len(value) == HEX_DIGITS[algorithm] for algorithm, value in digests)
    path = folder / "web01.ova"
    path.write_bytes(data)
    file = open_file(path)
    try:
        return _read(file, data[:BLOCK])
    except Failure as failure:
        if not (failure.message.isprintable() and len(failure.message) < 1000):
            raise ValueError(f"not one plain line: {failure!r}") from failure
        return failure.code
    finally:
        os.close(file.fd)


def _read(file: SourceFile, head: bytes) -> str:
    compression = compression_of(head)
    if tar.is_tar(head):
        _require_apart(file, tar.read_members(Plain(file), file.path))
        return "tar"
    if zip.is_zip(head):
        members = zip.read_members(file)
        _require_apart(file, sorted(((one.name, one.offset, one.packed) for one in members), key=lambda one: one[1]))
        return "zip"
    if compression is None:
        return "other"
    stream = Unpacked(file, compression)
    for member in tar.read_members(stream, file.path):
        stream.read(min(member.length, 100))
    stream.finish()
    return compression


def _require_apart(file: SourceFile, members: Iterable[tuple[str, int, int]]) -> None:
    end, names = 0, set[str]()
    for name, offset, length in members:
        assert end <= offset <= offset + length <= file.size
        assert name.isprintable() and name not in names and len(name) <= 1024
        assert not {"", ".", ".."} & set(name.split("/"))
        end = offset + length
        names.add(name)


def fuzz(seed: int, count: int) -> harness.Outcome:
    corpus: list[bytes] = []

    def one(number: int, folder: Path) -> str:
        if not corpus:
            corpus.extend(samples(folder))
        return attempt(number, tuple(corpus), folder)

    return harness.fuzz(one, seed, count)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, fuzz, count=100_000))
