"""The copy engine: a Source's runs into a Target, with all cores, bounded memory and a way to go on after a crash.

Work is placed in guest order whatever thread finishes first, so the same source gives the same file; and a copy that
was killed, taken up again from its checkpoint, gives that file too.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty

from hyper2kvmd.disk import checkpoint, kernel
from hyper2kvmd.disk.batches import Cutter
from hyper2kvmd.disk.blocks import Run, Source
from hyper2kvmd.disk.copy_errors import cannot_reserve, write_failure
from hyper2kvmd.disk.copy_worker import Done, Keeper, Sealed, Share, work
from hyper2kvmd.disk.target import Target
from hyper2kvmd.errors import MigrationFailed

MAX_THREADS = 16
PROGRESS_PERIOD = 0.2
"""Seconds between two calls of `on_progress`."""
AHEAD = 3
"""Batches handed out per thread."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """Bytes: `read` of the `total` guest bytes that the source holds, `written` into the image file."""

    read: int
    written: int
    total: int
    resumed: int = 0
    """Of `read`, what an earlier attempt had done."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a copy may take of the host."""

    threads: int = min(MAX_THREADS, os.cpu_count() or 1)
    bytes_per_second: int | None = None
    """Guest bytes copied; sharing blocks is free."""


def copy(
    source: Source,
    target: Target,
    *,
    identity: str,
    reserve: bool = False,
    limits: Limits | None = None,
    on_progress: Callable[[Amounts], None] = lambda _: None,
) -> Amounts:
    """Copy all of `source` into `target`, finish that, and return what was moved; all of it is on disk then.

    `identity` names the source's files as they are now: a checkpoint of another identity is not used. With `reserve`
    the image gets blocks for all that its guest may ever write, and shares none with the source. `on_progress` is
    called in this thread, as is whatever a signal handler raises; both end the copy.

    Raises MigrationFailed (`content-incomplete`, `content-invalid`, `disk-full`, `disk-read-failed`,
    `disk-write-failed`, `reserve-failed`), and what the source raises.
    """
    if source.virtual_size != target.virtual_size:
        raise ValueError(f"a disk of {source.virtual_size} bytes into an image of {target.virtual_size}")
    return _Copy(source, target, identity, reserve, limits or Limits(), on_progress).run()


class _Copy:
    """One copy, seen from its caller's thread."""

    def __init__(
        self,
        source: Source,
        target: Target,
        identity: str,
        reserve: bool,
        limits: Limits,
        on_progress: Callable[[Amounts], None],
    ) -> None:
        self._source, self._target, self._reserve = source, target, reserve
        self._limits, self._on_progress = limits, on_progress
        self._share = Share(source, target, limits.bytes_per_second)
        self._key = checkpoint.make_key(f"{identity}\n{reserve}", target.options, target.fd)
        self._read = self._written = self._resumed = self._total = 0
        self._said = 0.0
        self._open: Counter[int] = Counter()
        self._read_in: Counter[int] = Counter()
        self._sealed: dict[int, Sealed] = {}
        self._kept = 0

    def run(self) -> Amounts:
        self._total = sum(run.length for run in self._source.runs(0, self._source.virtual_size))
        start, runs_from = self._begin()
        keeper = Keeper(self._share, self._key, self._read)
        threads = [threading.Thread(target=work, args=(self._share,)) for _ in range(self._limits.threads)]
        keeping = threading.Thread(target=keeper.live)
        try:
            for thread in (*threads, keeping):
                thread.start()
            self._feed(keeper, start, runs_from)
            for _ in threads:
                self._share.work.put(None)
            keeper.windows.put(None)
            keeping.join()
            self._collect(block=False)
        finally:
            self._share.stop = True
            for _ in threads:
                self._share.work.put(None)
            keeper.windows.put(None)
            for thread in (*threads, keeping):
                if thread.ident is not None:
                    thread.join()
        return self._finish()

    def _begin(self) -> tuple[int, int]:
        """Where to start in guest space, and with which run."""
        target = self._target
        found = checkpoint.load(target.path, self._key)
        try:
            if found is not None:
                target.resume(found.target_state())
        except ValueError:
            found = None
        if found is None:
            checkpoint.drop(target.path)
            target.begin()
        self._take_space()
        if found is None:
            return 0, 0
        self._read = self._resumed = self._kept = found.read
        return found.position, found.runs_from

    def _take_space(self) -> None:
        if not self._reserve:
            return
        size = self._target.full_size
        try:
            kernel.reserve(self._target.fd, size)
        except OSError as error:
            raise cannot_reserve(error, self._target.path, size) from error

    def _feed(self, keeper: Keeper, start: int, runs_from: int) -> None:
        target = self._target
        block = os.fstatvfs(target.fd).f_frsize
        cutter = Cutter(target.unit, target.window, block, self._clonable())
        in_flight = 0
        for batch in cutter.batches(self._checked(runs_from), start):
            self._open[batch.window] += 1
            self._share.work.put(batch)
            in_flight += 1
            while in_flight >= AHEAD * self._limits.threads:
                in_flight -= self._collect(block=True)
                self._pass_on(keeper)
        while in_flight:
            in_flight -= self._collect(block=True)
            self._pass_on(keeper)

    def _pass_on(self, keeper: Keeper) -> None:
        """Give the keeper the windows before which every batch is in the file."""
        for window in sorted(self._sealed):
            if any(other < window for other in self._open):
                return
            earlier = [other for other in self._read_in if other < window]
            self._kept += sum(self._read_in.pop(other) for other in earlier)
            keeper.windows.put((self._sealed.pop(window), self._kept))

    def _clonable(self) -> Callable[[int], bool]:
        target = self._target
        if self._reserve or target.compress:
            return lambda _file: False
        return functools.cache(lambda file: kernel.can_clone(file, target.path.parent))

    def _checked(self, runs_from: int) -> Iterator[Run]:
        """The source's runs, shown to be in order and inside the disk."""
        size, end = self._source.virtual_size, 0
        files: set[int] = set()
        for run in self._source.runs(runs_from, size):
            if run.file not in files:
                files.add(run.file)
                os.posix_fadvise(run.file, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            if run.guest < end or run.length <= 0 or run.guest + run.length > size:
                raise MigrationFailed(
                    "content-invalid",
                    f"the source's tables place {run.length} bytes at offset {run.guest} of a disk of {size} bytes",
                    hint="export the disk again: its tables are damaged",
                )
            end = run.guest + run.length
            yield run

    def _collect(self, *, block: bool) -> int:
        """Take what threads have reported, waiting for something when `block`; the number of batches done."""
        count = 0
        while True:
            self._say()
            try:
                done = self._share.done.get(block and count == 0, PROGRESS_PERIOD)
            except Empty:
                if block and count == 0:
                    continue
                return count
            if isinstance(done, BaseException):
                raise done
            count += self._account(done)

    def _account(self, done: Done) -> int:
        self._read += done.read
        self._written += done.written
        if done.window < 0:
            return 0
        self._open[done.window] -= 1
        if not self._open[done.window]:
            del self._open[done.window]
        self._read_in[done.window] += done.read
        if done.sealed is not None:
            self._sealed[done.window] = done.sealed
        return 1

    def _say(self) -> None:
        now = time.monotonic()
        if now - self._said >= PROGRESS_PERIOD:
            self._said = now
            self._on_progress(self._amounts())

    def _amounts(self) -> Amounts:
        return Amounts(self._read, self._written, self._total, self._resumed)

    def _finish(self) -> Amounts:
        target = self._target
        if self._read != self._total:
            raise MigrationFailed(
                "content-incomplete",
                f"{self._read} of the {self._total} bytes that the source holds were copied",
                hint="make sure that nothing writes to the source, then retry",
            )
        self._take_space()
        try:
            self._written += target.finish()
        except OSError as error:
            raise write_failure(error, target.path, 0) from error
        checkpoint.drop(target.path)
        self._on_progress(self._amounts())
        return self._amounts()
