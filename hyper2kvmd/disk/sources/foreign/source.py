"""A foreign disk as a source: vetted here, read by QEMU in its sandbox."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Literal

from hyper2kvmd.disk import ranges
from hyper2kvmd.disk.blocks import Run
from hyper2kvmd.disk.engine import copy
from hyper2kvmd.disk.files import SourceFile, source_changed
from hyper2kvmd.disk.images.image import NewImage, image_bytes
from hyper2kvmd.disk.qemu import nbd, qemu_img
from hyper2kvmd.disk.qemu.export import Exporter, export
from hyper2kvmd.disk.ranges import Ranges
from hyper2kvmd.disk.sources.foreign.qcow2 import Qcow2, read_qcow2
from hyper2kvmd.disk.sources.sampling import content_bytes, upper_bound
from hyper2kvmd.disk.sources.source import FileBacked, OnProgress

PIECE = 1 << 20
"""Bytes of one request to QEMU; divides `blocks.RUN_LIMIT`."""
EXPORT = "source"


class ForeignSource(FileBacked):
    """A `DiskSource` whose runs QEMU reads; valid inside `open_foreign` only."""

    format: Literal["qcow2"] = "qcow2"

    def __init__(self, disk: Qcow2, folder: Path, stack: ExitStack) -> None:
        self.file = disk.file
        self.subformat, self.virtual_size = disk.subformat, disk.virtual_size
        self.files = (disk.file,)
        self._disk, self._folder, self._stack = disk, folder, stack
        self._exporter: Exporter | None = None
        self._connecting = threading.Lock()
        self._idle: SimpleQueue[nbd.NbdReader] = SimpleQueue()

    @cached_property
    def data_bytes(self) -> int:
        """Estimated number of guest bytes in units with data; runs cover more. Raises as `runs` and `load` do."""
        if self._stored.length:
            self._serve()
        return content_bytes(self._stored, self._read)

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        """The runs that begin in [start, stop), in guest order: only for `load`, none longer than PIECE.

        Only for the thread that owns the source: this starts QEMU, which dies with the thread that started it.
        """
        self._serve()
        lo = start // PIECE * PIECE
        hi = -(-stop // PIECE) * PIECE
        for begin, end in ranges.cut(self._stored.within(lo, hi), PIECE):
            if start <= begin < stop:
                yield Run(begin, end - begin, self.file.fd, begin, packed=True)

    def copy_into(self, image: NewImage, limits: copy.CopyLimits, on_progress: OnProgress) -> None:
        """Copy with qemu-img, which starts over after it was killed.

        Raises as `qemu_img.convert` does, and MigrationFailed (`source-changed`) if the amount of data has grown.
        """
        total = image.data_bytes
        most = image_bytes(self.virtual_size, upper_bound(total, self._stored.length), image.format)

        def on_fraction(done: float) -> None:
            facts = image.path.stat()
            written = min(facts.st_blocks * 512, facts.st_size)  # XFS reserves blocks behind the end of a growing file
            if written > most + qemu_img.PREALLOCATION and not image.reserve:
                raise source_changed(self.file.path)
            on_progress(copy.Amounts(int(done * total), written, total))

        qemu_img.convert(
            self.file,
            self.format,
            image.path,
            image.format,
            virtual_size=self.virtual_size,
            compress=image.compress,
            reserve=image.reserve,
            threads=limits.threads,
            bytes_per_second=limits.bytes_per_second,
            on_fraction=on_fraction,
        )
        on_fraction(1.0)

    def load(self, run: Run) -> bytes:
        """Safe to call from several threads: each takes a connection. Raises as `export` and `NbdReader.read` do."""
        return self._read(run.guest, run.guest + run.length)

    def _read(self, start: int, stop: int) -> bytes:
        try:
            reader = self._idle.get_nowait()
        except Empty:
            reader = self._connect()
        data = reader.read(start, stop - start)
        self._idle.put(reader)
        return data

    @cached_property
    def _stored(self) -> Ranges:
        return Ranges(ranges.in_units(self._disk.stored(), self.virtual_size))

    def _connect(self) -> nbd.NbdReader:
        with self._connecting:
            return self._stack.enter_context(nbd.NbdReader(self._serve().socket, EXPORT))

    def _serve(self) -> Exporter:
        if self._exporter is None:
            served = export(
                self.file.path,
                self.format,
                self._folder,
                exports={EXPORT: None},
                writable=False,
                opened=self.files,
            )
            self._exporter = self._stack.enter_context(served)
        return self._exporter


@contextlib.contextmanager
def open_foreign(file: SourceFile, folder: Path) -> Iterator[ForeignSource]:
    """The QCOW2 in `file`, vetted. QEMU starts at the first read, with its socket in `folder`.

    Raises as `read_qcow2` does.
    """
    with ExitStack() as stack:
        yield ForeignSource(read_qcow2(file), folder, stack)
