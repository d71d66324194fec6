"""Damages NTFS volumes: our reader describes or refuses each, and if the library falls, only its process does.

`python -m tests.fuzz.ntfs --count 20000`; what it finds it prints with the seed that makes it again:
`--seed N --count 1`. `--deep` also opens, lists, reads and changes each volume in the confined process.
"""

from __future__ import annotations

import random
import struct
import sys
import tempfile
from functools import partial
from pathlib import Path

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.volumes.ntfs.records import NtfsRecords
from hyper2kvmd.volumes.ntfs.state import (
    holds_registry,
    is_dirty,
    log_state,
    memory_image,
    other_folder,
    require_shut_down,
)
from hyper2kvmd.volumes.ntfs.volume import NtfsVolume, open_volume
from tests.fuzz import harness
from tests.fuzz.harness import NUMBERS
from tests.support.ntfs import CLUSTER, IDENTITY, RECORD, MemoryVolume, changed, log_page, make_ntfs, write_log

MIB = 1 << 20
SIZE = 4 * MIB
REGISTRY = "Windows/System32/config/SYSTEM"
DRIVERS = tuple(f"Windows/a driver with a long name {number}.sys" for number in range(40))
FILES = (REGISTRY, "bootmgr", "hiberfil.sys", *DRIVERS)
EXPECTED = {"ntfs-damaged", "ntfs-tool-died", "ntfs-tool-faulty", "guest-hibernated", "windows-unclean"}


def sample(*, deep: bool) -> bytes:
    """A sound volume with files and a folder with an index of several blocks; a log unless the library opens it."""
    with tempfile.TemporaryDirectory() as folder:
        path = make_ntfs(Path(folder, "volume"), SIZE)
        with changed(path) as volume:
            for name in ("Windows", "Windows/System32", "Windows/System32/config"):
                volume.mkdir(name)
            for name in FILES:
                volume.write(name, name.encode() * 400)
        if not deep:
            write_log(path, [log_page(1, closed=True), log_page(2, closed=True)])
        return path.read_bytes()


def places(data: bytes) -> list[tuple[int, int]]:
    """Starts and lengths of what a reader of the volume meets: boot sector, records of files, blocks of indexes."""
    (mft,) = struct.unpack_from("<Q", data, 48)
    found = [(0, 80), *((mft * CLUSTER + number * RECORD, 512) for number in (0, 0, 0, 2, 3, 5, 5, 6, 10))]
    found += [(mft * CLUSTER + number * RECORD, 400) for number in range(64, 64 + len(FILES) + 3)]
    at = data.find(b"INDX")
    while at >= 0:
        found.append((at, 1024))
        at = data.find(b"INDX", at + 1)
    log = data.find(b"RSTR")
    return [*found, (log, 128), (log + 4096, 128)] if log >= 0 else found


def damage(data: bytes, spots: list[tuple[int, int]], pick: random.Random) -> bytearray:
    changed_data = bytearray(data)
    for _ in range(pick.choice((1, 1, 2, 4, 8))):
        start, length = pick.choice(spots)
        at = start + pick.randrange(length)
        match pick.randrange(5):
            case 0:
                changed_data[at] = pick.randrange(256)
            case 1:
                changed_data[at] ^= 1 << pick.randrange(8)
            case 2:
                struct.pack_into("<I", changed_data, at & ~1, pick.choice(NUMBERS))
            case 3:
                struct.pack_into("<H", changed_data, at & ~1, pick.choice(NUMBERS) & 0xFFFF)
            case _:
                other = pick.choice(spots)[0]
                changed_data[at : at + 16] = changed_data[other : other + 16]
    return changed_data


def attempt(data: bytes, spots: list[tuple[int, int]], seed: int, _: Path, *, deep: bool) -> str:
    disk = MemoryVolume(damage(data, spots, random.Random(seed)))  # noqa: S311 - it has to be repeatable
    before = bytes(disk.data)
    try:
        ended = _opened(disk) if deep else _described(disk)
    except MigrationFailed as failure:
        if failure.code not in EXPECTED:
            raise
        ended = failure.code
    except OSError:
        ended = "an error"
    assert disk.data == before
    return ended


def _described(disk: MemoryVolume) -> str:
    records = NtfsRecords(disk)
    for name in FILES[:5]:
        if (number := records.find(name)) is not None:
            records.head(number, 4096)
    memory_image(records), log_state(records), is_dirty(records), holds_registry(disk), other_folder(disk)
    require_shut_down(IDENTITY, disk)
    return "described"


def _opened(disk: MemoryVolume) -> str:
    with open_volume(disk, IDENTITY) as volume:
        _walk(volume, "", 0)
        volume.write("Windows/System32/new.sys", b"new" * 5000)
        volume.write(REGISTRY, b"hive" * 9000)
        volume.unlink("bootmgr")
        made = volume.changed_blocks()
    copy = MemoryVolume(bytearray(disk.data))
    made.write(copy)
    return "changed"


def _walk(volume: NtfsVolume, folder: str, depth: int) -> None:
    for name in volume.names(folder)[:50]:
        path = f"{folder}/{name}".lstrip("/")
        entry = volume.entry(path)
        if entry.is_folder and depth < 6 and entry.reparse_tag is None:
            _walk(volume, path, depth + 1)
        elif not entry.is_folder and entry.reparse_tag is None:
            volume.read(path, 1 << 20) if entry.size <= 1 << 20 else None


def fuzz(seed: int, count: int, *, deep: bool = False) -> harness.Outcome:
    data = sample(deep=deep)
    return harness.fuzz(partial(attempt, data, places(data), deep=deep), seed, count)


if __name__ == "__main__":
    deep = "--deep" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--deep"]
    sys.exit(harness.main(__doc__, partial(fuzz, deep=deep), 2000))
