"""The changed blocks of a volume: checked, stored durably, applied, and applied again after a crash.

A journal is stored in the job's folder before the first byte of the image changes, and removed when all bytes are on
the disk. So the volume is the old one or the new one, whenever this process is killed. A journal with a note is kept
after it was applied, so the next attempt can read what this one changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.files import sync_folder
from hyper2kvmd.volumes.fat import Blocks
from hyper2kvmd.volumes.ntfs.tool import DATA_LIMIT, faulty

MAGIC = b"hyper2kvmd-ntfs-journal-1\n"
DIGEST = hashlib.sha256
LENGTH_BYTES = 8
BLOCK = 4096
SECTOR = 512
"""Bytes that a disk writes as a whole."""
PIECE = 1 << 20
RUNS_LIMIT = 100_000
REPEATED_LIMIT = 4 << 30
"""Bytes of runs with one repeated byte: the log is emptied so, which has at most 4 GiB."""
FILE_LIMIT = DATA_LIMIT + (64 << 20)


@dataclass(frozen=True)
class ChangedRun:
    """`length` new bytes at `offset`: `data`, or its one byte repeated."""

    offset: int
    length: int
    data: bytes

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Offsets and bytes of at most PIECE each."""
        for at in range(0, self.length, PIECE):
            count = min(PIECE, self.length - at)
            whole = self.data * count if self.is_repeated else self.data[at : at + count]
            yield self.offset + at, whole

    @property
    def is_repeated(self) -> bool:
        return len(self.data) == 1 != self.length


@dataclass(frozen=True)
class ChangeJournal:
    """What turns the volume `identity` of `size` bytes into the new one. `before` has a checksum of each old sector."""

    identity: str
    size: int
    runs: tuple[ChangedRun, ...]
    before: array[int]
    note: str = ""
    """For the next attempt: see `applied_note`."""

    @property
    def changed_bytes(self) -> int:
        return sum(run.length for run in self.runs)

    def write(self, folder: Path) -> None:
        """Store it durably in the job's folder. Raises OSError."""
        payload = self._payload()
        place = place_of(folder, self.identity)
        draft = place.with_suffix(".draft")
        with draft.open("wb") as file:
            file.write(MAGIC + DIGEST(payload).digest() + len(payload).to_bytes(LENGTH_BYTES, "little"))
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place)
        sync_folder(folder)

    def apply(self, blocks: Blocks) -> None:
        """Write all runs; on return they are on the disk. Raises MigrationFailed (`image-write-failed`)."""
        for run in self.runs:
            for offset, data in run.pieces():
                blocks.write(offset, data)
        blocks.flush()

    def drop(self, folder: Path) -> None:
        """After `apply`: it will not be applied again, and only its note is kept. Raises OSError."""
        if self.note:
            place_of(folder, self.identity).replace(applied_place_of(folder, self.identity))
        remove(folder, self.identity)

    def fits(self, blocks: Blocks) -> bool:
        """Whether each sector is the old or the new one, as a crash leaves them: else it is for other bytes.

        Raises MigrationFailed (`ntfs-journal-foreign`) if the volume is neither.
        """
        old = new = True
        known = iter(self.before)
        partly = False
        for run in self.runs:
            for offset, data in run.pieces():
                found = blocks.read(offset, len(data))
                for sector, wanted in zip(_sectors(found), _sectors(data), strict=True):
                    is_old, is_new = _checksum(sector) == next(known), sector == wanted
                    partly |= is_new and not is_old
                    old, new = old and is_old, new and (is_old or is_new)
        if not new and partly:
            raise _foreign(self.identity)
        return new

    def is_in(self, blocks: Blocks) -> bool:
        """Whether the volume has all its bytes. Raises MigrationFailed as `blocks` does."""
        if self.size != blocks.size:
            return False
        pieces = (piece for run in self.runs for piece in run.pieces())
        return all(blocks.read(offset, len(data)) == data for offset, data in pieces)

    def _payload(self) -> bytes:
        table = [[run.offset, run.length, len(run.data)] for run in self.runs]
        head = {"identity": self.identity, "size": self.size, "runs": table, "note": self.note}
        text = json.dumps(head).encode() + b"\n"
        return b"".join((text, _little(self.before), *(run.data for run in self.runs)))


def changes_of(blocks: Blocks, identity: str, runs: Sequence[object], data: bytes) -> ChangeJournal:
    """The journal from an answer of the process; blocks that have not changed are left out.

    Raises MigrationFailed (`ntfs-tool-faulty`) for runs that are not inside the volume, or not in order.
    """
    kept: list[ChangedRun] = []
    before = array("I")
    for run in _checked(blocks.size, runs, data):
        for offset, new in run.pieces():
            old = blocks.read(offset, len(new))
            for start, end in _differences(old, new):
                kept.append(_compact(offset + start, new[start:end]))
                before.extend(map(_checksum, _sectors(old[start:end])))
    return ChangeJournal(identity, blocks.size, tuple(kept), before)


def _compact(offset: int, data: bytes) -> ChangedRun:
    repeated = data == data[:1] * len(data)
    return ChangedRun(offset, len(data), data[:1] if repeated else data)


def _differences(old: bytes, new: bytes) -> Iterator[tuple[int, int]]:
    """Ranges of blocks that differ."""
    start = None
    for at in range(0, len(new), BLOCK):
        if old[at : at + BLOCK] != new[at : at + BLOCK]:
            start = at if start is None else start
        elif start is not None:
            yield start, at
            start = None
    if start is not None:
        yield start, len(new)


def _checked(size: int, runs: Sequence[object], data: bytes) -> Iterator[ChangedRun]:
    if len(runs) > RUNS_LIMIT:
        raise faulty("its journal has too many parts")
    at = used = repeated = 0
    for run in runs:
        if not isinstance(run, list) or len(run) != 3 or any(type(number) is not int for number in run):
            raise faulty("its journal is not understood")
        offset, length, byte = run
        if offset < at or length <= 0 or offset + length > size or offset % BLOCK or not -1 <= byte <= 255:
            raise faulty(f"its journal writes {length} bytes at {offset}")
        at = offset + length
        if byte >= 0:
            repeated += length
            yield ChangedRun(offset, length, bytes((byte,)))
        else:
            yield ChangedRun(offset, length, data[used : used + length])
            used += length
        if repeated > REPEATED_LIMIT or used > len(data):
            raise faulty("its journal has a wrong size")
    if used != len(data):
        raise faulty("its journal has a wrong size")


def _sectors(data: bytes) -> Iterator[bytes]:
    return (data[at : at + SECTOR] for at in range(0, len(data), SECTOR))


def _checksum(sector: bytes) -> int:
    return zlib.crc32(sector)


def _little(numbers: array[int]) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)


def place_of(folder: Path, identity: str) -> Path:
    return folder / f"ntfs-{DIGEST(identity.encode()).hexdigest()[:16]}.journal"


def applied_place_of(folder: Path, identity: str) -> Path:
    """Of a journal that was applied and has a note."""
    return place_of(folder, identity).with_suffix(".applied")


def remove(folder: Path, identity: str) -> None:
    place_of(folder, identity).unlink(missing_ok=True)
    place_of(folder, identity).with_suffix(".draft").unlink(missing_ok=True)
    sync_folder(folder)


def stored(folder: Path, identity: str) -> ChangeJournal | None:
    """The whole journal in the job's folder; None if there is none, or only a part of one. Raises OSError."""
    return _whole(place_of(folder, identity), identity)


def applied_note(folder: Path, identity: str, blocks: Blocks) -> str:
    """The note of the journal that an earlier attempt has applied; empty if the volume is not as that left it.

    Raises OSError, and MigrationFailed as `blocks` does.
    """
    found = _whole(applied_place_of(folder, identity), identity)
    return found.note if found is not None and found.is_in(blocks) else ""


def _whole(place: Path, identity: str) -> ChangeJournal | None:
    try:
        with place.open("rb") as file:
            raw = file.read(FILE_LIMIT)
    except FileNotFoundError:
        return None
    head = len(MAGIC) + DIGEST().digest_size + LENGTH_BYTES
    digest, length, payload = raw[len(MAGIC) : head - LENGTH_BYTES], raw[head - LENGTH_BYTES : head], raw[head:]
    whole = raw.startswith(MAGIC) and int.from_bytes(length, "little") == len(payload)
    if not whole or DIGEST(payload).digest() != digest:
        return None
    found = _read(payload)
    return found if found.identity == identity else None


def _read(payload: bytes) -> ChangeJournal:
    """A payload that this program has written, which its digest shows."""
    text, _, rest = payload.partition(b"\n")
    head = json.loads(text)
    sectors = sum(-(-length // SECTOR) for _, length, _ in head["runs"])
    before = array("I", (int.from_bytes(rest[at : at + 4], "little") for at in range(0, 4 * sectors, 4)))
    runs, at = [], 4 * sectors
    for offset, length, count in head["runs"]:
        runs.append(ChangedRun(offset, length, rest[at : at + count]))
        at += count
    return ChangeJournal(head["identity"], head["size"], tuple(runs), before, head["note"])


def replay_if_present(folder: Path, identity: str, blocks: Blocks) -> bool:
    """Apply the journal of an attempt that was killed, and drop it; whether there was one.

    Part of a journal, or one for other bytes, is removed only: nothing of it was applied to this volume. Raises OSError
    and MigrationFailed (`image-write-failed`, `ntfs-journal-foreign`).
    """
    found = stored(folder, identity)
    usable = found is not None and found.size == blocks.size and found.fits(blocks)
    if found is not None and usable:
        found.apply(blocks)
        found.drop(folder)
    remove(folder, identity)
    return usable


def _foreign(identity: str) -> MigrationFailed:
    return MigrationFailed(
        "ntfs-journal-foreign",
        f"the journal of an earlier attempt was applied in part to {identity}, which was changed since",
        hint="Submit the migration again: the conversion starts over",
    )
