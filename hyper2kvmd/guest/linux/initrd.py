"""An initrd file as the kernel sees it: archives one after the other, each plain or compressed.

Reads their contents up to what the kernel cannot unpack, and packs an archive that the kernel unpacks after them. gzip,
xz, lzma and bzip2 are unpacked here; zstd, lz4 and lzo by their own confined tools.
Sources: init/initramfs.c and lib/decompress_*.c of Linux, RFC 1952, lz4_Block_format.md, lz4's legacy frame.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.linux import cpio, frames
from hyper2kvmd.host import run

MARKER = b"hyper2kvm-virtio-appended"
"""Name in the gzip header of our archive, and of an empty file in it: it marks an initrd as already repaired."""
MARKER_FILE = "." + MARKER.decode()
CHUNK = 1 << 20
MAX_UNPACKED = 4 << 30
MAX_DICTIONARY = 512 << 20
"""Bytes of memory for xz and lzma; `xz -9` needs 65 MiB."""
LZ4_BLOCK = 8 << 20
LZ4_END_MARK = 4
"""Bytes of zeros; else the kernel takes what follows for another block."""
MAGIC_BYTES = 16
FIRST_PROGRAM = "init"
"""What the kernel starts: the archive with it is the one that matters."""
Keep = Callable[[str], bool]


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def unpack(self, data: bytes) -> bytes:
        """At most CHUNK bytes of output; b"" if it needs more data."""
        ...

    @property
    def needs_input(self) -> bool: ...


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(31)
        self.eof, self.unused_data = False, b""

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    def unpack(self, data: bytes) -> bytes:
        piece = self._stream.decompress(self._stream.unconsumed_tail + data, CHUNK)
        self.eof, self.unused_data = self._stream.eof, self._stream.unused_data
        return piece


class _Bounded:
    """bz2 and lzma, which hold their input themselves."""

    def __init__(self, stream: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._stream = stream

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    @property
    def needs_input(self) -> bool:
        return self._stream.needs_input

    def unpack(self, data: bytes) -> bytes:
        return self._stream.decompress(data, CHUNK)


def _xz() -> _Decompressor:
    return _Bounded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_DICTIONARY))


def _lzma() -> _Decompressor:
    return _Bounded(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_DICTIONARY))


def _bzip2() -> _Decompressor:
    return _Bounded(bz2.BZ2Decompressor())


UNPACKED_HERE: tuple[tuple[bytes, str, Callable[[], _Decompressor]], ...] = (
    (b"\x1f\x8b", "gzip", _Gzip),
    (b"\xfd7zXZ\0", "xz", _xz),
    (b"\x5d\x00\x00", "lzma", _lzma),
    (b"BZh", "bzip2", _bzip2),
)
UNPACKED_BY_TOOLS: tuple[tuple[bytes, str, tuple[str, ...], frames.FindEnd], ...] = (
    (frames.ZSTD, "zstd", ("zstd", "-dcq", "--long=31"), frames.end_of_zstd),
    (frames.LZ4_LEGACY, "lz4", ("lz4", "-dcq"), frames.end_of_legacy_lz4),
    (frames.LZ4_FRAME, "lz4", ("lz4", "-dcq"), frames.end_of_lz4),
    (frames.LZOP, "lzo", ("lzop", "-dcq"), frames.end_of_lzop),
)


@dataclass(frozen=True)
class Initrd:
    """The contents of an initrd, and how the next archive must follow."""

    size: int
    contents: cpio.Contents
    place: int
    """The byte for the next archive: the end, or before what the kernel does not unpack."""
    after_lz4: bool
    ignored: str = ""
    """What the kernel does not unpack, and where."""


@dataclass(frozen=True)
class _Unpacked:
    contents: cpio.Contents
    end: int
    legacy_lz4: bool = False


def read(file: BinaryIO, keep: Keep) -> Initrd:
    """Names in all archives of an initrd, and the content of the small files that `keep` selects.

    The kernel stops at bytes that it cannot unpack, and boots with what it has. So does this, provided that the first
    program is there. Raises MigrationFailed (`initrd-damaged`) and BrokenInstallation (`tool-missing`).
    """
    size = os.fstat(file.fileno()).st_size
    contents = cpio.Contents()
    last = _Unpacked(contents, 0)
    while (at := _skip_zeros(file, last.end)) < size:
        try:
            if last.legacy_lz4 and at < last.end + LZ4_END_MARK:
                raise cpio.damaged(f"what begins at byte {at} follows lz4 blocks without an end mark")
            segment = _read_segment(file, at, size, keep)
        except MigrationFailed as failure:
            if FIRST_PROGRAM not in contents.names:
                raise
            return Initrd(size, contents, last.end, last.legacy_lz4, ignored=failure.message)
        contents.merge(segment.contents)
        last = segment
    if last.end == 0:
        raise cpio.damaged("it has no archive")
    return Initrd(size, contents, last.end if last.legacy_lz4 else size, last.legacy_lz4)


def _skip_zeros(file: BinaryIO, at: int) -> int:
    while data := os.pread(file.fileno(), CHUNK, at):
        if rest := data.lstrip(b"\0"):
            return at + len(data) - len(rest)
        at += len(data)
    return at


def _read_segment(file: BinaryIO, at: int, size: int, keep: Keep) -> _Unpacked:
    head = os.pread(file.fileno(), MAGIC_BYTES, at)
    if head.startswith(cpio.MAGIC):
        if at % 4:
            raise cpio.damaged(f"a cpio archive begins at byte {at}, not at a multiple of four")
        return _read_plain(file, at, keep)
    for magic, name, argv, find_end in UNPACKED_BY_TOOLS:
        if head.startswith(magic):
            with _named(f"the {name} archive at byte {at}"):
                end = find_end(file.fileno(), at, size)
                contents = _read_by_tool(argv, file, at, end, keep)
                return _Unpacked(contents, end, legacy_lz4=magic == frames.LZ4_LEGACY)
    for magic, name, decompressor in UNPACKED_HERE:
        if head.startswith(magic):
            with _named(f"the {name} archive at byte {at}"):
                return _read_compressed(file, at, decompressor(), keep)
    raise cpio.damaged(
        f"the format of {size - at} bytes from byte {at} on is unknown (they begin with {head[:6].hex()})"
    )


@contextmanager
def _named(segment: str) -> Iterator[None]:
    """Say in which archive the damage is."""
    try:
        yield
    except cpio.Damage as damage:
        raise cpio.damaged(f"{segment}: {damage}") from damage


def _stream(file: BinaryIO, at: int) -> tuple[cpio.Stream, Callable[[], int]]:
    """The file from byte `at` on, and its byte that is to be read next."""
    position = at

    def pull() -> bytes:
        nonlocal position
        data = os.pread(file.fileno(), CHUNK, position)
        position += len(data)
        return data

    stream = cpio.Stream(pull)
    return stream, lambda: position - stream.held


def _read_plain(file: BinaryIO, at: int, keep: Keep) -> _Unpacked:
    raw, position = _stream(file, at)
    contents = cpio.Contents()
    with _named(f"the cpio archive at byte {at}"):
        cpio.read(raw, contents, keep)
    return _Unpacked(contents, position())


def _read_compressed(file: BinaryIO, at: int, decompressor: _Decompressor, keep: Keep) -> _Unpacked:
    raw, position = _stream(file, at)

    def pull() -> bytes:
        while not decompressor.eof:
            data = raw.some() if decompressor.needs_input else b""
            if not data and decompressor.needs_input:
                raise cpio.Damage("it ends too early")
            try:
                piece = decompressor.unpack(data)
            except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
                raise cpio.Damage(str(error)) from error
            if piece:
                return piece
        return b""

    contents = _read_archives(pull, keep)
    raw.give_back(decompressor.unused_data)
    return _Unpacked(contents, position())


def _read_by_tool(argv: tuple[str, ...], file: BinaryIO, begin: int, end: int, keep: Keep) -> cpio.Contents:
    with run.filtered(argv, file.fileno(), begin, end) as tool:

        def pull() -> bytes:
            if data := tool.read(CHUNK):
                return data
            if complaint := tool.complaint():
                raise cpio.Damage(complaint)
            return b""

        return _read_archives(pull, keep)


def _read_archives(pull: Callable[[], bytes], keep: Keep) -> cpio.Contents:
    """Read the archives in one compressed piece to its end; there must be at least one."""
    unpacked = 0

    def counted() -> bytes:
        nonlocal unpacked
        data = pull()
        unpacked += len(data)
        if unpacked > MAX_UNPACKED:
            raise cpio.Damage("it unpacks to more than 4 GiB")
        return data

    contents, stream = cpio.Contents(), cpio.Stream(counted)
    cpio.read(stream, contents, keep)
    stream.skip_zeros()
    while stream.peek(6) in cpio.MAGIC:
        cpio.read(stream, contents, keep)
        stream.skip_zeros()
    while stream.some():
        pass
    return contents


def is_mended(file: BinaryIO) -> bool:
    """Whether an archive packed by `follow_up` is in the file."""
    position, tail = 0, b""
    while data := os.pread(file.fileno(), CHUNK, position):
        if MARKER in tail + data:
            return True
        position += len(data)
        tail = data[-len(MARKER) :]
    return False


def follow_up(before: Initrd, archive: bytes) -> bytes:
    """The bytes to insert at `before.place` so that the kernel unpacks `archive` after all others.

    A gzip member on a four-byte boundary, except after a legacy lz4 stream: that has no end mark, so kernels before
    5.10 read everything after it as lz4. There the archive follows as stored lz4 blocks.
    """
    if before.after_lz4:
        return _stored_lz4(archive)
    packed = io.BytesIO()
    with gzip.GzipFile(MARKER.decode(), "wb", 6, packed, mtime=0) as member:
        member.write(archive)
    return b"\0" * (-before.place % 4) + packed.getvalue()


def _stored_lz4(data: bytes) -> bytes:
    parts = [frames.LZ4_LEGACY]
    for at in range(0, len(data), LZ4_BLOCK):
        literal = data[at : at + LZ4_BLOCK]
        if len(literal) < 15:
            block = bytes([len(literal) << 4]) + literal
        else:
            full, rest = divmod(len(literal) - 15, 255)
            block = b"\xf0" + b"\xff" * full + bytes([rest]) + literal
        parts += [struct.pack("<I", len(block)), block]
    return b"".join(parts)
