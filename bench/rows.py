"""The rows of the table: what is converted, against what, and what is asked of the ratio."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import sources
from bench.measure import Command, reflink_file_system, sh
from bench.sources import Disk

QEMU_CONVERT = ("qemu-img", "convert", "-m", "16", "-W")
"""Its best flags: the fastest of what it offers, and no flush at the end, which is its default."""

WARM_UP = ("qemu-img", "--version")


@dataclass(frozen=True)
class Bench:
    """What the rows share. `disk` is the usual disk, `huge` one of much more virtual size than data."""

    disk: Disk
    huge: Disk
    threads: int
    cache: Path

    @property
    def small(self) -> Disk:
        """As much data as `huge` has, on the virtual size that `disk` has."""
        return Disk(self.disk.size, self.huge.data)


@dataclass(frozen=True)
class Pair:
    """Two commands to run in turns. `data` is what `blocks` is compared with, where sharing them is the point."""

    ours: Command
    theirs: Command
    shared_data: int | None = None


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    against: str
    at_least: float | None
    """Their seconds through ours; None where the row only shows something."""
    pair: Callable[[Bench, Path], Pair]
    disk: Callable[[Bench], Disk] = lambda bench: bench.disk
    reflink: bool = False
    most_extra_blocks: float | None = None
    """Of the data, as a fraction."""

    @contextmanager
    def prepared(self, bench: Bench) -> Iterator[Pair]:
        """The row's sources exist and its working directory is empty, for the length of the block."""
        bench.cache.mkdir(parents=True, exist_ok=True)
        work = bench.cache / "work"
        work.mkdir(exist_ok=True)
        for left_over in work.iterdir():
            left_over.unlink()
        if self.reflink:
            disk = self.disk(bench)
            with reflink_file_system(bench.cache, 4 * disk.data + disk.size // 512 + sources.GIB) as place:
                yield self.pair(bench, place)
        else:
            yield self.pair(bench, work)


def ours(source: Path, target: Path, threads: int, *options: str) -> Command:
    """As the convert stage does it."""
    return Command("ours", driver("convert", source, target, threads, *options), target, waits=True, warm_up=WARM_UP)


def driver(verb: str, source: Path, target: Path, threads: int, *options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "bench.ours", verb, str(source), str(target), "--threads", str(threads), *options)


def qemu_convert(source: Path, fmt: str, target: Path, *options: str) -> Command:
    argv = (*QEMU_CONVERT, *options, "-f", fmt, "-O", "qcow2", str(source), str(target))
    return Command("qemu-img convert", argv, target, warm_up=WARM_UP)


def converted_from(
    fmt: str, options: str = "", *, disk: Callable[[Bench], Disk] = lambda bench: bench.disk
) -> Callable[[Bench, Path], Pair]:
    def pair(bench: Bench, work: Path) -> Pair:
        made = disk(bench)
        source = sources.raw(made, bench.cache) if fmt == "raw" else sources.image(made, bench.cache, fmt, options)
        return Pair(ours(source, work / "a.qcow2", bench.threads), qemu_convert(source, fmt, work / "b.qcow2"))

    return pair


def vmdk(subformat: str, *, disk: Callable[[Bench], Disk] = lambda bench: bench.disk) -> Callable[[Bench, Path], Pair]:
    return converted_from("vmdk", f"subformat={subformat}", disk=disk)


def reflinked(subformat: str) -> Callable[[Bench, Path], Pair]:
    def pair(bench: Bench, work: Path) -> Pair:
        source = sources.image(bench.disk, bench.cache, "vmdk", f"subformat={subformat}", place=work)
        a, b = ours(source, work / "a.qcow2", bench.threads), qemu_convert(source, "vmdk", work / "b.qcow2")
        return Pair(a, b, shared_data=bench.disk.data)

    return pair


def against_cp(bench: Bench, work: Path) -> Pair:
    source = sources.image(bench.disk, bench.cache, "vmdk", "subformat=streamOptimized")
    result = converted(source, work)
    copy = Command("cp", ("cp", str(result), str(work / "b.qcow2")), work / "b.qcow2", warm_up=("cp", "--version"))
    return Pair(ours(source, work / "a.qcow2", bench.threads), copy)


def one_thread(bench: Bench, work: Path) -> Pair:
    source = sources.image(bench.disk, bench.cache, "vmdk", "subformat=streamOptimized")
    return Pair(ours(source, work / "a.qcow2", bench.threads), ours(source, work / "b.qcow2", 1))


def compressed(bench: Bench, work: Path) -> Pair:
    source = sources.image(bench.disk, bench.cache, "vmdk", "subformat=streamOptimized")
    a = ours(source, work / "a.qcow2", bench.threads, "--compress")
    return Pair(a, qemu_convert(source, "vmdk", work / "b.qcow2", "-c", "-o", "compression_type=zstd"))


def in_ova(*options: str) -> Callable[[Bench, Path], Pair]:
    def pair(bench: Bench, work: Path) -> Pair:
        bare = sources.image(bench.disk, bench.cache, "vmdk", "subformat=streamOptimized")
        packed = sources.ova(bench.disk, bench.cache)
        a, b = work / "a.qcow2", work / "b.qcow2"
        return Pair(ours(packed, a, bench.threads, *options), ours(bare, b, bench.threads))

    return pair


def growth(bench: Bench, work: Path) -> Pair:
    huge = sources.image(bench.huge, bench.cache, "vmdk", "subformat=streamOptimized")
    small = sources.image(bench.small, bench.cache, "vmdk", "subformat=streamOptimized")
    return Pair(ours(huge, work / "a.qcow2", bench.threads), ours(small, work / "b.qcow2", bench.threads))


def compared(bench: Bench, work: Path) -> Pair:
    source = sources.image(bench.disk, bench.cache, "vmdk", "subformat=streamOptimized")
    result = converted(source, work)
    theirs = ("qemu-img", "compare", "-f", "vmdk", "-F", "qcow2", str(source), str(result))
    a = Command("ours", driver("compare", source, result, bench.threads), waits=True)
    return Pair(a, Command("qemu-img compare", theirs, warm_up=WARM_UP))


def converted(source: Path, work: Path) -> Path:
    result = work / "result.qcow2"
    sh(*QEMU_CONVERT, "-f", "vmdk", "-O", "qcow2", source, result)
    return result


ROWS = (
    Row("stream", "streamOptimized", "qemu-img convert", 4, vmdk("streamOptimized")),
    Row("cp", "streamOptimized", "cp of the resulting QCOW2", 1, against_cp),
    Row("threads", "streamOptimized", "ours with 1 thread", None, one_thread),
    Row("ova", "streamOptimized in an OVA", "ours, the VMDK itself", 0.91, in_ova()),
    Row("ova-sha256", "the same, its SHA-256 verified", "ours, the VMDK itself", None, in_ova("--sha256")),
    Row("compress", "streamOptimized, compressed", "qemu-img convert -c, zstd", 1, compressed),
    Row("compare", "streamOptimized, content comparison", "qemu-img compare", 1, compared),
    Row(
        "sparse-reflink",
        "monolithicSparse on XFS with reflink",
        "qemu-img convert",
        30,
        reflinked("monolithicSparse"),
        reflink=True,
        most_extra_blocks=0.01,
    ),
    Row(
        "flat-reflink",
        "monolithicFlat on XFS with reflink",
        "qemu-img convert",
        30,
        reflinked("monolithicFlat"),
        reflink=True,
        most_extra_blocks=0.01,
    ),
    Row("sparse-ext4", "monolithicSparse on ext4", "qemu-img convert", 1, vmdk("monolithicSparse")),
    Row("flat-ext4", "monolithicFlat on ext4", "qemu-img convert", 1, vmdk("monolithicFlat")),
    Row("raw", "raw on ext4", "qemu-img convert", 0.95, converted_from("raw")),
    Row("qcow2", "QCOW2", "qemu-img convert", 0.95, converted_from("qcow2")),
    Row("vdi", "VDI", "qemu-img convert", 0.95, converted_from("vdi")),
    Row("vhdx", "VHDX", "qemu-img convert", 0.95, converted_from("vhdx")),
    Row(
        "huge",
        "streamOptimized",
        "qemu-img convert",
        None,
        vmdk("streamOptimized", disk=lambda bench: bench.huge),
        disk=lambda bench: bench.huge,
    ),
    Row(
        "huge-sparse",
        "monolithicSparse on ext4",
        "qemu-img convert",
        None,
        vmdk("monolithicSparse", disk=lambda bench: bench.huge),
        disk=lambda bench: bench.huge,
    ),
    Row("growth", "streamOptimized", "ours, the same data on the usual size", None, growth, lambda bench: bench.huge),
)
