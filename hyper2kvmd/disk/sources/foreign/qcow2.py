"""QCOW2 as a source: its header is vetted here; QEMU reads its tables.

Source: QEMU, docs/interop/qcow2.txt, sections "Header" and "Header extensions".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hyper2kvmd.disk import faults
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.qemu import qemu_img
from hyper2kvmd.disk.ranges import Ranges
from hyper2kvmd.errors import MigrationFailed

MAGIC = b"QFI\xfb"
HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
FEATURES = struct.Struct(">QQQII")
"""Of version 3: incompatible, compatible and autoclear features, refcount order, length of the header."""
DIRTY, CORRUPT, DATA_FILE, COMPRESSION_TYPE, EXTENDED_L2 = (1 << bit for bit in range(5))
KNOWN = DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2
EXTENSION = struct.Struct(">II")
EXTENSIONS_END, DATA_FILE_NAME = 0, 0x44415441
SMALLEST_CLUSTER_BITS, LARGEST_CLUSTER_BITS = 9, 21
SMALLEST_COMPRESSED = 8
"""Bytes of the smallest compressed cluster."""
LONGEST_NAME = 1023
"""Bytes of a backing file's name."""
LARGEST_L1 = 32 << 20
"""Bytes; QEMU's limit."""


@dataclass(frozen=True)
class Qcow2:
    """A QCOW2 without a backing file. `snapshots` counts internal snapshots, which are not migrated."""

    file: SourceFile
    version: int
    virtual_size: int
    snapshots: int

    @property
    def subformat(self) -> str:
        left = f", {self.snapshots} internal snapshots left behind" if self.snapshots else ""
        return f"version {self.version}{left}"

    def stored(self) -> Iterator[tuple[int, int]]:
        """The ranges that QEMU reads, after it has checked the tables: it reads clusters past the file's end as zeros.

        Raises MigrationFailed (`source-corrupt`, `disk-read-failed`, `source-check-failed`).
        """
        fault = qemu_img.corruption(self.file, "qcow2")
        if fault is not None:
            raise faults.corrupt(self.file.path, fault)
        found = Ranges()
        left = self.file.size

        def take(start: int, stop: int, at: int | None) -> None:
            nonlocal left
            left -= SMALLEST_COMPRESSED if at is None else stop - start
            if left < 0:
                raise faults.overfull(self.file.path)
            if at is None:
                found.add(start, stop)
                return
            for begin, end in self.file.data_ranges(at, at + stop - start):
                found.add(start + begin - at, start + end - at)

        qemu_img.walk(self.file, "qcow2", take)
        return iter(found)


def read_backing_name(file: SourceFile) -> str:
    """The name of the backing file, empty for none; it is not opened."""
    header = file.read(0, HEADER.size)
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        return ""
    _, _, at, length, *_ = HEADER.unpack(header)
    return file.read(at, min(length, LONGEST_NAME)).decode(errors="replace") if at else ""


def read_qcow2(file: SourceFile) -> Qcow2:
    """Raises MigrationFailed (`source-corrupt`, `source-truncated`, `source-unsupported`, `source-has-parent`,
    `source-encrypted`, `source-unclean`)."""
    (_, version, backing, _, bits, size, encryption, l1_entries, l1, refcounts, clusters, snapshots, _) = HEADER.unpack(
        file.read_whole(0, HEADER.size)
    )
    if version not in (2, 3):
        raise faults.unsupported(file.path, f"is QCOW version {version}", "Convert it with `qemu-img convert -O qcow2`")
    if backing:
        raise faults.has_parent(file.path, "is a QCOW2 overlay: it contains only the differences from a backing file")
    if encryption:
        raise _encrypted(file)
    if version == 3:
        _check_features(file)
    if not SMALLEST_CLUSTER_BITS <= bits <= LARGEST_CLUSTER_BITS:
        raise faults.corrupt(file.path, f"its header says that clusters have 2^{bits} bytes")
    cluster = 1 << bits
    if size == 0 or size % 512:
        raise faults.corrupt(file.path, f"its header describes a disk of {size} bytes")
    faults.check_disk_size(file.path, size)
    needed = -(-size // (cluster * (cluster // 8)))
    if l1_entries < needed or l1_entries * 8 > LARGEST_L1:
        raise faults.corrupt(file.path, f"its L1 table has {l1_entries} entries; {needed} are needed")
    for name, offset, length in (("L1", l1, l1_entries * 8), ("refcount", refcounts, clusters * cluster)):
        if offset == 0 or offset % cluster:
            raise faults.corrupt(file.path, f"its {name} table lies at byte {offset}")
        if offset + length > file.size:
            raise faults.truncated(
                file.path, f"its {name} table lies up to byte {offset + length}, the file has {file.size}"
            )
    return Qcow2(file, version, size, snapshots)


def _check_features(file: SourceFile) -> None:
    features, _, _, _, length = FEATURES.unpack(file.read_whole(HEADER.size, FEATURES.size))
    if length < HEADER.size + FEATURES.size:
        raise faults.corrupt(file.path, f"it says that its header has {length} bytes")
    if features & DATA_FILE or DATA_FILE_NAME in _extensions(file, length):
        raise faults.has_parent(file.path, "keeps its data in another file (external data file)")
    if features & CORRUPT:
        raise faults.corrupt(file.path, "QEMU marked it as corrupt")
    if features & DIRTY:
        raise faults.unclean(
            file.path,
            "was not closed cleanly (its dirty bit is set)",
            f"Shut the guest down, then run `qemu-img check -r all {file.path}`",
        )
    if features & ~KNOWN:
        raise faults.unsupported(
            file.path,
            f"uses unsupported features ({features & ~KNOWN:#x})",
            "Convert it with `qemu-img convert -O qcow2`",
        )


def _extensions(file: SourceFile, at: int) -> Iterator[int]:
    """The types of its header extensions, which end with the first cluster at the latest."""
    stop = min(file.size, 1 << LARGEST_CLUSTER_BITS)
    while at + EXTENSION.size <= stop:
        kind, length = EXTENSION.unpack(file.read_whole(at, EXTENSION.size))
        if kind == EXTENSIONS_END:
            return
        yield kind
        at += EXTENSION.size + length + -length % 8


def _encrypted(file: SourceFile) -> MigrationFailed:
    return MigrationFailed(
        "source-encrypted",
        f"{file.path} is encrypted",
        hint="Decrypt it first, with qemu-img convert and its secret: encrypted disks are not supported",
    )
