"""A VMDK as one disk (`blocks.Source`): its extents one after the other, over those of its parents.

A snapshot is flattened while it is read: each grain comes from the topmost disk of the chain that has it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from hyper2kvmd.disk import faults
from hyper2kvmd.disk.blocks import RUN_LIMIT, Buffer, Run
from hyper2kvmd.disk.engine import copy
from hyper2kvmd.disk.files import Forward, SourceFile, open_file
from hyper2kvmd.disk.images.image import NewImage
from hyper2kvmd.disk.sources.source import FileBacked, OnProgress, copy_by_engine
from hyper2kvmd.disk.sources.vmdk import descriptor as text
from hyper2kvmd.disk.sources.vmdk import esx, sparse
from hyper2kvmd.disk.sources.vmdk.descriptor import SECTOR, Descriptor
from hyper2kvmd.disk.sources.vmdk.files import is_plain_name, sibling
from hyper2kvmd.disk.sources.vmdk.flat import FlatExtent, ZeroExtent, open_flat
from hyper2kvmd.disk.sources.vmdk.links import read_descriptor, same_cid
from hyper2kvmd.disk.sources.vmdk.pieces import Extent, ExtentPiece, PieceKind
from hyper2kvmd.disk.sources.vmdk.sparse import SparseExtent
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.model.disks import SourceFormat

DEPTH_LIMIT = 32
"""Disks in a chain: as many as vSphere allows."""


@dataclass(frozen=True)
class Layer:
    """One disk of a chain, alone."""

    file: SourceFile
    """The file with the descriptor: it names the extents and the parent."""
    descriptor: Descriptor
    size: int
    extents: tuple[Extent, ...]

    @property
    def path(self) -> Path:
        return self.file.path

    def pieces(self, lo: int, hi: int) -> Iterator[ExtentPiece]:
        first = max(0, bisect_right(self.extents, lo, key=lambda extent: extent.start) - 1)
        for extent in self.extents[first:]:
            if extent.start >= hi:
                return
            yield from extent.pieces(lo, hi)


@dataclass
class Opening:
    """The files opened so far, each once; those opened here are closed with `stack`."""

    stack: ExitStack
    mandate: Mandate
    files: dict[Path, SourceFile]
    checked: set[tuple[Path, Mandate]] = field(default_factory=set)

    def named_by(self, file: SourceFile) -> Mandate:
        return self.mandate.named_by(file.fd, file.path)

    def open(self, path: Path, mandate: Mandate) -> SourceFile:
        """The file `path`; if several files name it, it is checked once for each of them."""
        if path in self.files:
            if (path, mandate) not in self.checked:
                mandate.require(self.files[path].fd, path)
                self.checked.add((path, mandate))
            return self.files[path]
        file = open_file(path, mandate)
        self.stack.callback(os.close, file.fd)
        self.files[path] = file
        self.checked.add((path, mandate))
        return file

    def open_new(self, path: Path, mandate: Mandate) -> SourceFile:
        """A file that this disk may use only once."""
        if path in self.files:
            raise faults.corrupt(path, "it is named twice by the same disk")
        return self.open(path, mandate)


class VmdkSource(FileBacked):
    """A `DiskSource`; valid inside `open_vmdk` only. `load` may be called from several threads."""

    format: SourceFormat = "vmdk"

    def __init__(self, layers: tuple[Layer, ...], files: tuple[SourceFile, ...]) -> None:
        self._layers = layers
        self.files = files
        self._by_descriptor = {file.fd: file for file in files}
        self._sparse = {
            extent.file.fd: extent for layer in layers for extent in layer.extents if isinstance(extent, SparseExtent)
        }
        self._threads = threading.local()
        self.virtual_size = layers[0].size
        self.subformat = layers[0].descriptor.create_type
        self.serial = layers[0].descriptor.serial or layers[-1].descriptor.serial
        self.data_bytes = self._data_bytes()
        """Guest bytes that runs cover."""

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        """The runs that begin in [start, stop), in guest order, none longer than RUN_LIMIT.

        They do not depend on `start` and `stop`: any windows that cover the disk give the same runs.
        Raises MigrationFailed (`source-corrupt`, `source-truncated`, `disk-read-failed`).
        """
        lo = start // RUN_LIMIT * RUN_LIMIT
        hi = min(-(-stop // RUN_LIMIT) * RUN_LIMIT, self.virtual_size)
        for piece in _joined(self._pieces(0, lo, hi)):
            if piece.guest >= stop:
                return
            if piece.guest < start:
                continue
            if piece.kind is PieceKind.PACKED:
                yield Run(piece.guest, piece.length, piece.file, piece.offset, packed=True)
            else:
                first = self._by_descriptor[piece.file].first
                yield Run(piece.guest, piece.length, piece.file, first + piece.offset)

    def copy_into(self, image: NewImage, limits: copy.CopyLimits, on_progress: OnProgress) -> None:
        """Raises as `copy.copy` does."""
        copy_by_engine(self, image, limits, on_progress)

    def load(self, run: Run) -> Buffer:
        """Exactly `run.length` bytes; a compressed grain's checksum is verified.

        Raises MigrationFailed (`source-corrupt`, `source-truncated`, `disk-read-failed`).
        """
        if run.packed:
            extent = self._sparse[run.file]
            return extent.load(self._forward(extent.file), run.guest, run.length, run.offset)
        file = self._by_descriptor[run.file]
        return file.read_whole(run.offset - file.first, run.length)

    def _forward(self, file: SourceFile) -> Forward:
        """This thread's reader, kept for the file read last."""
        held: Forward | None = getattr(self._threads, "forward", None)
        if held is None or held.file is not file:
            held = self._threads.forward = Forward(file)
        return held

    def _data_bytes(self) -> int:
        if len(self._layers) == 1:
            return sum(extent.stored for extent in self._layers[0].extents)
        pieces = self._pieces(0, 0, self.virtual_size)
        return sum(piece.length for piece in pieces if piece.kind is not PieceKind.ZERO)

    def _pieces(self, depth: int, lo: int, hi: int) -> Iterator[ExtentPiece]:
        """The pieces of the disk at `depth` of the chain, with its gaps filled from the disks below."""
        layer, deepest = self._layers[depth], depth + 1 == len(self._layers)
        hi = min(hi, layer.size)
        if deepest:
            yield from layer.pieces(lo, hi)
            return
        for piece in layer.pieces(lo, hi):
            if lo < piece.guest:
                yield from self._pieces(depth + 1, lo, piece.guest)
            yield piece
            lo = piece.guest + piece.length
        if lo < hi:
            yield from self._pieces(depth + 1, lo, hi)


def _joined(pieces: Iterator[ExtentPiece]) -> Iterator[ExtentPiece]:
    """Pieces with data, joined where they are contiguous, cut at multiples of RUN_LIMIT."""
    pending: ExtentPiece | None = None
    for piece in pieces:
        if piece.kind is PieceKind.ZERO:
            continue
        if (
            pending is not None
            and piece.kind is pending.kind is PieceKind.RAW
            and piece.file == pending.file
            and piece.guest == pending.guest + pending.length
            and piece.offset == pending.offset + pending.length
        ):
            pending = pending._replace(length=pending.length + piece.length)
        else:
            if pending is not None:
                yield pending
            pending = piece
        while pending.guest // RUN_LIMIT < (pending.guest + pending.length - 1) // RUN_LIMIT:
            head = RUN_LIMIT - pending.guest % RUN_LIMIT
            yield pending._replace(length=head)
            offset = pending.offset + head if pending.kind is PieceKind.RAW else pending.offset
            pending = pending._replace(guest=pending.guest + head, length=pending.length - head, offset=offset)
    if pending is not None:
        yield pending


@contextlib.contextmanager
def open_vmdk(file: SourceFile, mandate: Mandate = ANYONE) -> Iterator[VmdkSource]:
    """Open all files of the open VMDK `file`, and check every table; they are closed at the end.

    Raises MigrationFailed (`source-missing`, `source-unreadable`, `source-not-vmdk`, `source-unsupported`,
    `source-parent-missing`, `source-parent-differs`, `source-truncated`, `source-corrupt`,
    `source-extent`, `source-unclean`, `source-too-complex`) or Unsafe (as `open_file` does).
    """
    with ExitStack() as stack:
        opening = Opening(stack, mandate, {file.path: file})
        layers = [_layer(file, opening)]
        while layers[-1].descriptor.has_parent:
            if len(layers) == DEPTH_LIMIT:
                raise faults.unsupported(
                    file.path,
                    f"is a snapshot with more than {DEPTH_LIMIT - 1} parents",
                    "Consolidate the snapshots in vSphere, then export the disk",
                )
            layers.append(_open_parent(layers[-1], opening))
            if sum(len(layer.extents) for layer in layers) > faults.LARGEST_NUMBER_OF_EXTENTS:
                raise faults.too_many_extents(file.path)
        _require_apart([extent for layer in layers for extent in layer.extents])
        yield VmdkSource(tuple(layers), tuple(opening.files.values()))


def _require_apart(extents: Sequence[Extent]) -> None:
    """Refuse flat extents with bytes in common: a disk could name a small file any number of times."""
    flat = [extent for extent in extents if isinstance(extent, FlatExtent)]
    flat.sort(key=lambda extent: (extent.file.fd, extent.offset))
    for one, following in pairwise(flat):
        if one.file is following.file and following.offset < one.offset + one.stop - one.start:
            raise faults.corrupt(one.file.path, f"two extents of the disk contain its byte {following.offset}")


def _layer(file: SourceFile, opening: Opening) -> Layer:
    """The disk that the open `file` describes; the files that it names are opened as its extents."""
    path, head = file.path, file.read(0, SECTOR)
    if head.startswith(sparse.MAGIC):
        header = sparse.read_header(file)
        descriptor = text.parse_descriptor(sparse.embedded_descriptor(file, header), path)
        _check_parent(descriptor, path)
        text.check_descriptor(descriptor, path, embedded=True)
        stop = descriptor.extents[0].sectors * SECTOR
        return Layer(file, descriptor, stop, (sparse.open_sparse(file, header, 0, stop),))
    if head.startswith(esx.MAGICS):
        raise faults.is_extent(path)
    if not text.is_descriptor(head):
        raise MigrationFailed(
            "source-not-vmdk",
            f"{path} is not a VMDK: it begins with neither a sparse header nor a descriptor",
            hint="Name the .vmdk descriptor or a sparse VMDK file, not a -flat.vmdk, an OVA or another format",
        )
    descriptor = text.parse_descriptor(file.read(0, text.LIMIT + 1), path)
    _check_parent(descriptor, path)
    text.check_descriptor(descriptor, path, embedded=False)
    names = [sibling(file, extent.name) if extent.name is not None else None for extent in descriptor.extents]
    extents: list[Extent] = []
    at, named = 0, opening.named_by(file)
    for line, name in zip(descriptor.extents, names, strict=True):
        extents.append(_open_extent(line, name, at, named, opening))
        _require_same_chain(extents[-1], descriptor)
        at += line.sectors * SECTOR
    return Layer(file, descriptor, at, tuple(extents))


def _open_extent(line: text.ExtentLine, path: Path | None, start: int, mandate: Mandate, opening: Opening) -> Extent:
    stop = start + line.sectors * SECTOR
    if path is None:
        return ZeroExtent(start, stop)
    if line.type in ("FLAT", "VMFS"):
        return open_flat(opening.open(path, mandate), start, stop, line.offset * SECTOR)
    file = opening.open_new(path, mandate)
    if line.type == "SPARSE":
        return sparse.open_sparse(file, sparse.read_header(file), start, stop)
    extent = esx.open_sesparse(file, start) if line.type == "SESPARSE" else esx.open_cowd(file, start)
    if extent.stop != stop:
        raise faults.corrupt(
            path, f"its header says {extent.stop - start} bytes, the descriptor {line.sectors * SECTOR}"
        )
    return extent


def _require_same_chain(extent: Extent, descriptor: Descriptor) -> None:
    """Refuse a delta that contains a descriptor with a parent, if the separate descriptor has none."""
    if descriptor.has_parent or not isinstance(extent, SparseExtent):
        return
    own = read_descriptor(extent.file)
    if own is not None and own.has_parent:
        raise faults.corrupt(
            extent.file.path, "it is a snapshot, but the descriptor that names it as an extent has no parent"
        )


def _check_parent(descriptor: Descriptor, path: Path) -> None:
    if not descriptor.has_parent:
        return
    hint, cid = descriptor.parent_hint or "", descriptor.parent_cid
    if cid == text.NO_PARENT or not is_plain_name(hint):
        raise MigrationFailed(
            "source-parent-missing",
            f"{path} is a snapshot whose parent ({hint[:80]!r}, CID {cid[:8]!r}) is not a file beside it",
            hint="Put the parent's files in the same directory and its bare name into parentFileNameHint, or"
            " consolidate the snapshots in vSphere, then export again",
        )


def _open_parent(child: Layer, opening: Opening) -> Layer:
    """The disk that `child` is a snapshot of, unchanged since: its CID must be the one recorded in the child."""
    path = sibling(child.file, child.descriptor.parent_hint or "")
    if path in opening.files:
        raise faults.corrupt(child.path, f"its parent {path.name} is a part of the same snapshot chain already")
    parent = _layer(opening.open_new(path, opening.named_by(child.file)), opening)
    if not same_cid(parent.descriptor.cid, child.descriptor.parent_cid):
        raise MigrationFailed(
            "source-parent-differs",
            f"{path} was changed after the snapshot {child.path.name}: its CID is {parent.descriptor.cid[:8]!r},"
            f" the snapshot was taken of {child.descriptor.parent_cid[:8]!r}",
            hint="Export the disk with all of its snapshots again, or consolidate them in vSphere",
        )
    return parent
