"""The copy engine: it copies a source into an image with all cores and bounded memory, and can resume after a crash.

Data is placed in guest order, whichever thread finishes first, so the same source gives the same file. A copy that was
killed and resumed from its checkpoint also gives that file.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty

from hyper2kvmd import units
from hyper2kvmd.disk import kernel
from hyper2kvmd.disk.blocks import Counted, Run
from hyper2kvmd.disk.engine import checkpoint
from hyper2kvmd.disk.engine.batches import BATCH, Cutter
from hyper2kvmd.disk.engine.checkpoint import Checkpoint
from hyper2kvmd.disk.engine.copy_errors import cannot_reserve, write_failure
from hyper2kvmd.disk.engine.copy_worker import (
    Done,
    Keeper,
    Sealed,
    Share,
    work,
)
from hyper2kvmd.disk.image_file import ImageFile
from hyper2kvmd.errors import MigrationFailed

MAX_THREADS = 8
"""More would wait for Python's lock."""
WORKERS, MAX_WORKERS = 3, 10
"""For each computing thread, and in total: while one inflates, others wait for the disk. Each costs 10 MiB."""
KEPT = 128 << 20
"""Bytes of freed memory."""
PROGRESS_PERIOD = 0.2
"""Seconds between two calls of `on_progress`."""
AHEAD = 3
"""Batches handed out per worker."""
WORKER_BYTES = 64 << 20
FEW_WORKERS = 4
"""More are started only for WORKER_BYTES each: work in progress is repeated after a copy was killed."""
SECTIONS = 32
"""Checkpoints of a fast copy."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """Bytes: `read` of the `total` guest bytes in the source, `written` into the image file."""

    read: int
    written: int
    total: int
    resumed: int = 0
    """The part of `read` from an earlier attempt."""


@dataclass(frozen=True, slots=True)
class CopyLimits:
    """Limits of a copy on this host."""

    threads: int = min(MAX_THREADS, os.cpu_count() or 1)
    """Those that compute at once."""
    bytes_per_second: int | None = None
    """Guest bytes copied; sharing blocks is free."""


def copy(
    source: Counted,
    image: ImageFile,
    *,
    identity: str,
    reserve: bool = False,
    limits: CopyLimits | None = None,
    on_progress: Callable[[Amounts], None] = lambda _: None,
) -> Amounts:
    """Copy all of `source` into `image`, finish it on disk, and return the amounts.

    `identity` identifies the source's files in their present state; a checkpoint of another identity is not used. With
    `reserve`, the image gets blocks for its guest's whole disk and shares none with the source. `on_progress` is called
    in this thread. An exception from it or from a signal handler ends the copy.

    Raises MigrationFailed (`content-incomplete`, `content-invalid`, `disk-full`, `disk-read-failed`,
    `disk-write-failed`, `reserve-failed`), and what the source raises.
    """
    if source.virtual_size != image.virtual_size:
        raise ValueError(f"a disk of {source.virtual_size} bytes into an image of {image.virtual_size}")
    return _Copy(source, image, identity, reserve, limits or CopyLimits(), on_progress).run()


def reserve(path: Path, size: int) -> None:
    """Reserve the first `size` bytes of an image. Raises MigrationFailed (`disk-full`, `reserve-failed`)."""
    with path.open("r+b") as file:
        _reserve(file.fileno(), path, size)


def _reserve(fd: int, path: Path, size: int) -> None:
    try:
        kernel.reserve(fd, size)
    except OSError as error:
        raise cannot_reserve(error, path, size) from error


class _Copy:
    """One copy, run in its caller's thread."""

    def __init__(
        self,
        source: Counted,
        image: ImageFile,
        identity: str,
        reserve: bool,
        limits: CopyLimits,
        on_progress: Callable[[Amounts], None],
    ) -> None:
        self._source, self._image, self._reserve = source, image, reserve
        self._limits, self._on_progress = limits, on_progress
        self._total = source.data_bytes
        section = max(BATCH, self._total // SECTIONS)
        self._share = Share(source, image, limits.bytes_per_second, section, threading.Semaphore(limits.threads))
        self._keeper = Keeper(self._share)
        self._key = checkpoint.make_key(f"{identity}\n{reserve}", image.options, image.fd)
        workers = min(WORKERS * limits.threads, max(limits.threads, MAX_WORKERS))
        self._workers = min(workers, max(FEW_WORKERS, self._total // WORKER_BYTES))
        self._read = self._written = self._resumed = 0
        self._said = 0.0
        self._done: dict[int, Done] = {}
        """By number: batches that wait for an earlier one."""
        self._next = self._kept = 0
        """All batches before this one are in the file; the guest bytes in them."""

    def run(self) -> Amounts:
        try:
            return self._run()
        except MigrationFailed:
            # After a failed write, data that was not flushed may be lost: only the durable record is valid.
            with contextlib.suppress(OSError):
                checkpoint.drop(self._image.path, checkpoint.LATEST)
            raise

    def _run(self) -> Amounts:
        image = self._image
        if checkpoint.is_complete(image.path, self._key, image.fd):
            self._read = self._resumed = self._total
            self._on_progress(self._amounts())
            return self._amounts()
        kernel.keep_freed_memory(2 * BATCH, KEPT)
        start, runs_from = self._begin()
        threads = [threading.Thread(target=work, args=(self._share,)) for _ in range(self._workers)]
        keeping = threading.Thread(target=self._keeper.live)
        try:
            for thread in (*threads, keeping):
                thread.start()
            self._feed(start, runs_from)
            for _ in threads:
                self._share.work.put(None)
            self._keeper.checkpoints.put(None)
            keeping.join()
            self._collect(block=False)
        finally:
            self._share.stop = True
            for _ in threads:
                self._share.work.put(None)
            self._keeper.checkpoints.put(None)
            for thread in (*threads, keeping):
                if thread.ident is not None:
                    thread.join()
        return self._finish()

    def _begin(self) -> tuple[int, int]:
        """Where to start in guest space, and with which run."""
        image = self._image
        for found in checkpoint.load(image.path, self._key):
            try:
                image.resume(found.image_state())
            except ValueError:
                continue
            except OSError as error:
                raise write_failure(error, image.path, found.position) from error
            if not found.boot:
                checkpoint.drop(image.path, checkpoint.LATEST)
            self._take_space()
            self._read = self._resumed = self._kept = found.read
            return found.position, found.runs_from
        checkpoint.drop(image.path, checkpoint.LATEST, checkpoint.DURABLE, checkpoint.COMPLETE)
        image.begin()
        self._take_space()
        return 0, 0

    def _take_space(self) -> None:
        if self._reserve:
            _reserve(self._image.fd, self._image.path, self._image.full_size)

    def _feed(self, start: int, runs_from: int) -> None:
        image = self._image
        block = os.fstatvfs(image.fd).f_frsize
        cutter = Cutter(image.unit, image.window, block, self._clonable())
        in_flight = 0
        for batch in cutter.batches(self._checked(start, runs_from), start):
            self._share.work.put(batch)
            in_flight += 1
            while in_flight >= AHEAD * self._workers:
                in_flight -= self._collect(block=True)
        while in_flight:
            in_flight -= self._collect(block=True)

    def _clonable(self) -> Callable[[int], bool]:
        image = self._image
        if self._reserve or image.compress:
            return lambda _file: False
        return functools.cache(lambda file: kernel.can_clone(file, image.path.parent))

    def _checked(self, start: int, runs_from: int) -> Iterator[Run]:
        """The source's runs, checked to be in order, inside the disk, and no more than the planned data."""
        size, end, offered = self._source.virtual_size, 0, self._resumed
        files: set[int] = set()
        for run in self._source.runs(runs_from, size):
            if run.file not in files:
                files.add(run.file)
                os.posix_fadvise(run.file, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            if run.guest < end or run.length <= 0 or run.guest + run.length > size:
                raise MigrationFailed(
                    "content-invalid",
                    f"the source's tables place {run.length} bytes at offset {run.guest} of a disk of {size} bytes",
                    hint="Export the disk again: its tables are damaged",
                )
            end = run.guest + run.length
            offered += max(0, end - max(run.guest, start))
            if offered > self._total:
                raise MigrationFailed(
                    "source-changed",
                    f"the source holds more than the {units.size(self._total)} of data that it held when the job began",
                    hint="Stop whatever writes to it (is the VM still running?), then retry",
                )
            yield run

    def _collect(self, *, block: bool) -> int:
        """Take the threads' reports, with `block` at least one; returns the number of batches done."""
        count = 0
        while True:
            self._report_progress()
            try:
                done = self._share.done.get(block and count == 0, PROGRESS_PERIOD)
            except Empty:
                if block and count == 0:
                    continue
                return count
            if isinstance(done, BaseException):
                raise done
            self._account(done)
            count += 1

    def _account(self, done: Done) -> None:
        self._read += done.read
        self._written += done.written
        self._done[done.number] = done
        while (first := self._done.pop(self._next, None)) is not None:
            self._next += 1
            self._kept += first.read
            if first.sealed is not None:
                self._record(first.sealed)

    def _record(self, sealed: Sealed) -> None:
        """Every batch that `sealed` covers is in the file."""
        found = Checkpoint(
            key=self._key,
            position=sealed.position,
            runs_from=sealed.runs_from,
            read=self._kept,
            state=checkpoint.pack_state(sealed.state),
        )
        try:
            checkpoint.note(self._image.path, found)
        except OSError as error:
            raise write_failure(error, self._image.path, found.position) from error
        self._keeper.checkpoints.put(found)

    def _report_progress(self) -> None:
        now = time.monotonic()
        if now - self._said >= PROGRESS_PERIOD:
            self._said = now
            self._on_progress(self._amounts())

    def _amounts(self) -> Amounts:
        return Amounts(self._read, self._written, self._total, self._resumed)

    def _finish(self) -> Amounts:
        image = self._image
        if self._read != self._total:
            raise MigrationFailed(
                "content-incomplete",
                f"{self._read} of the {self._total} bytes that the source holds were copied",
                hint="Make sure that nothing writes to the source, then retry",
            )
        self._take_space()
        try:
            self._written += image.finish()
            checkpoint.complete(image.path, self._key, image.fd)
        except OSError as error:
            raise write_failure(error, image.path, 0) from error
        self._on_progress(self._amounts())
        return self._amounts()
