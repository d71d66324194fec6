"""The threads of a copy: workers that load, place and write batches, and the keeper that makes them durable."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from hyper2kvmd.disk import kernel
from hyper2kvmd.disk.blocks import Buffer, Run, Source
from hyper2kvmd.disk.direct import DirectFile
from hyper2kvmd.disk.engine import checkpoint
from hyper2kvmd.disk.engine.batches import CopyBatch, Piece
from hyper2kvmd.disk.engine.checkpoint import Checkpoint
from hyper2kvmd.disk.engine.copy_errors import read_failure, short_read, write_failure
from hyper2kvmd.disk.image_file import ImageFile

CHECKPOINT_SECONDS = 5.0
"""Period of checkpoints for a copy that is too slow to fill a section in this time."""
FLUSH_SECONDS = 1.0
"""Shortest time between two flushes; a shorter copy flushes only at its end."""
IOVECS = 1024
SLICE = 0.1
"""Seconds after which a waiting thread checks again whether the copy was stopped."""


class Stopped(Exception):
    """The copy ends early; the reason is reported elsewhere."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """Everything before `position` is placed; `state` is valid once all batches so far are in the file."""

    position: int
    runs_from: int
    state: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """Batch `number` is in the file, with the tables that it completed."""

    number: int
    read: int
    written: int
    sealed: Sealed | None


@dataclass(slots=True)
class Placement:
    """Whole units of guest space that are placed together, and the data to write into them."""

    guest: int
    stop: int
    items: list[tuple[int, Buffer | Piece]]
    packed: Buffer | None = None


@dataclass
class Share:
    """The state that the threads of one copy share. `stop` is set once and never reset."""

    source: Source
    image: ImageFile
    bytes_per_second: int | None
    section: int
    """Guest bytes after which a checkpoint is due."""
    computing: threading.Semaphore
    """Held while a batch is read and inflated, not while it is written."""
    work: SimpleQueue[CopyBatch | None] = field(default_factory=SimpleQueue)
    done: SimpleQueue[Done | BaseException] = field(default_factory=SimpleQueue)
    stop: bool = False
    turn: int = 0
    turned: threading.Condition = field(default_factory=threading.Condition)
    unsealed: int = 0
    sealed_at: float = field(default_factory=time.monotonic)
    paid_until: float = 0.0
    paying: threading.Lock = field(default_factory=threading.Lock)

    def in_turn(self, number: int) -> None:
        """Return when all batches before `number` are placed. The caller holds `turned`."""
        while self.turn != number:
            if self.stop:
                raise Stopped
            self.turned.wait(SLICE)

    def seal(self, batch: CopyBatch) -> Sealed | None:
        """The checkpoint after `batch`, which was just placed, if one is due. The caller holds `turned`."""
        self.unsealed += batch.length
        now = time.monotonic()
        if self.unsealed < self.section and now - self.sealed_at < CHECKPOINT_SECONDS:
            return None
        self.unsealed, self.sealed_at = 0, now
        return Sealed(*batch.end, self.image.state())

    def pay(self, size: int) -> None:
        """Return when the bandwidth allows `size` more bytes."""
        if self.bytes_per_second is None:
            return
        with self.paying:
            until = max(self.paid_until, time.monotonic()) + size / self.bytes_per_second
            self.paid_until = until
        while (left := until - time.monotonic()) > 0:
            if self.stop:
                raise Stopped
            time.sleep(min(left, SLICE))


def work(share: Share) -> None:
    """Run a worker: copy batches from `work` until None. An error goes to `done` and ends it."""

    def each() -> None:
        zeros = bytes(share.image.unit)
        with contextlib.closing(DirectFile(share.image.path)) as direct:
            while (batch := share.work.get()) is not None and not share.stop:
                share.done.put(_copied(share, direct, batch, zeros))

    _live(share, each)


def _copied(share: Share, direct: DirectFile, batch: CopyBatch, zeros: bytes) -> Done:
    share.pay(batch.loaded)
    with share.computing:
        items = _load(share.source, batch.pieces, share.image.unit)
        placements = list(_placements(items, share.image, zeros))
    with share.turned:
        share.in_turn(batch.number)
        placed = [_place(share.image, placement) for placement in placements]
        placed.append([*share.image.take_tables()])
        sealed = share.seal(batch)
        share.turn += 1
        share.turned.notify_all()
    written = _write(share, direct, placed)
    return Done(batch.number, batch.length, written, sealed)


def _load(source: Source, pieces: list[Piece], unit: int) -> Iterator[tuple[int, Buffer | Piece]]:
    """(guest offset, bytes) inside one unit each, or (guest offset, piece) for a piece to share."""
    for piece in pieces:
        guest, length, run, clone = piece
        if clone:
            yield guest, piece
            continue
        data: Buffer = _packed(source, run, guest, length) if run.packed else _raw(run, guest, length)
        if guest % unit + length <= unit:
            yield guest, data
            continue
        view, at = memoryview(data), 0
        while at < length:
            stop = min(length, at + unit - (guest + at) % unit)
            yield guest + at, view[at:stop]
            at = stop


def _packed(source: Source, run: Run, guest: int, length: int) -> Buffer:
    try:
        data = source.load(run)
    except OSError as error:
        raise read_failure(error, guest) from error
    if len(data) != run.length:
        raise short_read(guest, run.length, len(data))
    return data if length == run.length else memoryview(data)[guest - run.guest :][:length]


def _raw(run: Run, guest: int, length: int) -> Buffer:
    data = bytearray(length)
    view, at, offset = memoryview(data), 0, run.offset + guest - run.guest
    while at < length:
        try:
            count = os.preadv(run.file, [view[at:]], offset + at)
        except OSError as error:
            raise read_failure(error, guest + at) from error
        if count == 0:
            raise short_read(guest, length, at)
        at += count
    return view


def _placements(items: Iterator[tuple[int, Buffer | Piece]], image: ImageFile, zeros: bytes) -> Iterator[Placement]:
    """The units that contain anything but zeros."""
    if image.compress:
        yield from _packed_placements(items, image, zeros)
        return
    unit, held = image.unit, None
    for guest, what in items:
        length = what.length if isinstance(what, Piece) else len(what)
        if not isinstance(what, Piece) and zeros.startswith(what):
            continue
        first = guest - guest % unit
        stop = guest + length
        stop += -stop % unit
        if held is not None and first <= held.stop:
            held.items.append((guest, what))
            held.stop = stop
            continue
        if held is not None:
            yield held
        held = Placement(first, stop, [(guest, what)])
    if held is not None:
        yield held


def _packed_placements(
    items: Iterator[tuple[int, Buffer | Piece]], image: ImageFile, zeros: bytes
) -> Iterator[Placement]:
    for guest, cluster in _units(items, image.unit):
        if cluster == zeros:
            continue
        yield Placement(guest, guest + image.unit, [(guest, cluster)], image.pack(cluster))


def _units(items: Iterator[tuple[int, Buffer | Piece]], unit: int) -> Iterator[tuple[int, bytes]]:
    """Whole units; bytes that no item covers are zeros."""
    held: bytearray | None = None
    at = -1
    for guest, data in items:
        assert not isinstance(data, Piece)  # noqa: S101 - nothing is shared with a compressed image
        first = guest - guest % unit
        if held is not None and first != at:
            yield at, bytes(held)
            held = None
        if held is None and len(data) == unit:
            yield guest, bytes(data)
            continue
        if held is None:
            held, at = bytearray(unit), first
        held[guest - first : guest - first + len(data)] = data
    if held is not None:
        yield at, bytes(held)


def _place(image: ImageFile, placement: Placement) -> list[tuple[int, Buffer | Piece]]:
    """The placement's items with their file offsets."""
    if placement.packed is not None:
        return [(image.place_packed(placement.guest, len(placement.packed)), placement.packed)]
    move = image.place(placement.guest, placement.stop - placement.guest) - placement.guest
    return [(guest + move, what) for guest, what in placement.items]


def _write(share: Share, direct: DirectFile, placed: list[list[tuple[int, Buffer | Piece]]]) -> int:
    """Write all, adjacent data in one call; the bytes written. Blocks that cannot be shared are copied."""
    written = 0
    for offset, buffers in _gathered(share, placed):
        size = sum(len(buffer) for buffer in buffers)
        try:
            past_cache = direct.write(offset, size, buffers)
        except OSError as error:
            raise write_failure(error, share.image.path, offset) from error
        if not past_cache:
            write_at(share.image, offset, buffers)
            kernel.start_writeback(share.image.fd, offset, size)
        written += size
    return written


def _gathered(share: Share, placed: list[list[tuple[int, Buffer | Piece]]]) -> Iterator[tuple[int, list[Buffer]]]:
    start, end = 0, -1
    buffers: list[Buffer] = []
    for offset, what in (item for items in placed for item in items):
        if isinstance(what, Piece):
            yield from _cloned(share, what, offset)
            continue
        if buffers and (offset != end or len(buffers) == IOVECS):
            yield start, buffers
            buffers = []
        if not buffers:
            start = offset
        buffers.append(what)
        end = offset + len(what)
    if buffers:
        yield start, buffers


def _cloned(share: Share, piece: Piece, offset: int) -> Iterator[tuple[int, list[Buffer]]]:
    """Share the blocks and yield nothing, or yield the bytes to write."""
    run = piece.run
    try:
        kernel.clone_range(run.file, run.offset + piece.guest - run.guest, piece.length, share.image.fd, offset)
        return
    except OSError as error:
        if error.errno not in kernel.UNSHARABLE:
            raise write_failure(error, share.image.path, offset) from error
    for at in range(0, piece.length, 1 << 20):
        size = min(1 << 20, piece.length - at)
        share.pay(size)
        yield offset + at, [_raw(run, piece.guest + at, size)]


def write_at(image: ImageFile, offset: int, buffers: list[Buffer]) -> None:
    """Write all of `buffers` at `offset`. Raises MigrationFailed (`disk-full`, `disk-write-failed`)."""
    left = buffers
    while left:
        try:
            count = os.pwritev(image.fd, left, offset)
        except OSError as error:
            raise write_failure(error, image.path, offset) from error
        offset += count
        while left and count >= len(left[0]):
            count -= len(left[0])
            left = left[1:]
        if count:
            left = [memoryview(left[0])[count:], *left[1:]]


class Keeper:
    """Makes the newest checkpoint durable, repeatedly; the disk determines how long each takes."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self.checkpoints: SimpleQueue[Checkpoint | None] = SimpleQueue()
        """Their data is in the file; None ends it."""

    def live(self) -> None:
        _live(self._share, self._each)

    def _each(self) -> None:
        due = time.monotonic() + FLUSH_SECONDS
        while (found := self.checkpoints.get()) is not None and not self._share.stop:
            newest = self._newest(found, due)
            if newest is None:
                return
            self._save(newest)
            due = time.monotonic() + FLUSH_SECONDS

    def _newest(self, found: Checkpoint, due: float) -> Checkpoint | None:
        """`found`, or the last one until `due`; None if the copy ends before."""
        with contextlib.suppress(Empty):
            while (later := self.checkpoints.get(timeout=max(0.0, due - time.monotonic()))) is not None:
                found = later
            return None
        return found

    def _save(self, found: Checkpoint) -> None:
        image = self._share.image
        try:
            os.fdatasync(image.fd)
            checkpoint.save(image.path, found)
        except OSError as error:
            raise write_failure(error, image.path, found.position) from error


def _live(share: Share, each: Callable[[], None]) -> None:
    try:
        each()
    except Stopped:
        return
    except BaseException as error:
        share.stop = True
        share.done.put(error)
