"""An initrd file as the kernel sees it: archives one after the other, each plain or compressed.

Reads their contents, and packs an archive that can follow the others. gzip, xz, lzma and bzip2 are unpacked here;
zstd, lz4 and lzo by their own confined tools, with the guest's file as their stdin.
Sources: lib/decompress_*.c and init/initramfs.c of Linux, RFC 1952, lz4_Block_format.md, lz4's legacy frame.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from hyper2kvmd.guest.linux import cpio
from hyper2kvmd.host import run

MARKER = b"hyper2kvm-virtio-appended"
"""Name in the gzip header of our archive, and of an empty file in it: it marks an initrd as already repaired."""
MARKER_FILE = "." + MARKER.decode()
CHUNK = 1 << 20
MAX_UNPACKED = 4 << 30
LZ4_LEGACY = b"\x02\x21\x4c\x18"
LZ4_BLOCK = 8 << 20
TOOLS: dict[bytes, tuple[str, ...]] = {
    b"\x28\xb5\x2f\xfd": ("zstd", "-dcq", "--long=31"),
    LZ4_LEGACY: ("lz4", "-dcq"),
    b"\x89LZO": ("lzop", "-dcq"),
}


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


FORMATS: tuple[tuple[bytes, Callable[[], _Decompressor]], ...] = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    (b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
    (b"\x5d\x00\x00", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE)),
    (b"BZh", bz2.BZ2Decompressor),
)


@dataclass(frozen=True)
class Initrd:
    """The contents of an initrd, and how the next archive must follow."""

    size: int
    contents: cpio.Contents
    ends_in_lz4: bool


def read(file: BinaryIO, keep: Callable[[str], bool]) -> Initrd:
    """Names in all archives of an initrd, and the content of the small files that `keep` selects.

    Data after a zstd, lz4 or lzo archive is not read. Raises MigrationFailed (`initrd-damaged`) and
    BrokenInstallation (`tool-missing`).
    """
    size = os.fstat(file.fileno()).st_size
    contents = cpio.Contents()
    position = 0

    def pull() -> bytes:
        nonlocal position
        data = os.pread(file.fileno(), CHUNK, position)
        position += len(data)
        return data

    raw = cpio.Stream(pull)
    while True:
        raw.skip_zeros()
        head = raw.peek(6)
        if not head:
            return Initrd(size, contents, ends_in_lz4=False)
        if head in cpio.MAGIC:
            cpio.read(raw, contents, keep)
            continue
        if argv := TOOLS.get(head[:4]):
            _read_by_tool(argv, file, position - raw.held, contents, keep)
            return Initrd(size, contents, ends_in_lz4=head[:4] == LZ4_LEGACY)
        for magic, decompressor in FORMATS:
            if head.startswith(magic):
                _read_compressed(raw, decompressor(), contents, keep)
                break
        else:
            raise cpio.damaged(f"its format is unknown (it goes on with {head.hex()})")


def _read_compressed(
    raw: cpio.Stream, decompressor: _Decompressor, contents: cpio.Contents, keep: Callable[[str], bool]
) -> None:
    unpacked = 0

    def pull() -> bytes:
        nonlocal unpacked
        while not decompressor.eof:
            data = raw.some()
            if not data:
                return b""
            try:
                piece = decompressor.decompress(data)
            except (zlib.error, lzma.LZMAError, OSError) as error:
                raise cpio.damaged(str(error)) from error
            unpacked += len(piece)
            if unpacked > MAX_UNPACKED:
                raise cpio.damaged("it unpacks to more than 4 GiB")
            if piece:
                return piece
        return b""

    _read_archives(cpio.Stream(pull), contents, keep)
    while pull():
        pass
    raw.give_back(decompressor.unused_data)


def _read_by_tool(
    argv: tuple[str, ...], file: BinaryIO, start: int, contents: cpio.Contents, keep: Callable[[str], bool]
) -> None:
    file.seek(start)
    os.lseek(file.fileno(), start, os.SEEK_SET)
    process = run.start(argv, sandbox=run.Sandbox(), stdin=file.fileno())
    try:
        assert process.stdout is not None  # noqa: S101 - narrows the type
        output = process.stdout
        _read_archives(cpio.Stream(lambda: output.read(CHUNK)), contents, keep)
    finally:
        run.stop(process, grace=0)


def _read_archives(stream: cpio.Stream, contents: cpio.Contents, keep: Callable[[str], bool]) -> None:
    """Read the archives in one compressed piece; there must be at least one."""
    cpio.read(stream, contents, keep)
    stream.skip_zeros()
    while stream.peek(6) in cpio.MAGIC:
        cpio.read(stream, contents, keep)
        stream.skip_zeros()


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
    """The bytes to append to an initrd so that the kernel unpacks `archive` after the rest.

    A gzip member on a four-byte boundary, except after a legacy lz4 stream: that has no end mark, so kernels before
    5.10 read everything after it as lz4. There the archive follows as stored lz4 blocks.
    """
    if before.ends_in_lz4:
        return _stored_lz4(archive)
    packed = io.BytesIO()
    with gzip.GzipFile(MARKER.decode(), "wb", 6, packed, mtime=0) as member:
        member.write(archive)
    return b"\0" * (-before.size % 4) + packed.getvalue()


def _stored_lz4(data: bytes) -> bytes:
    parts = [LZ4_LEGACY]
    for at in range(0, len(data), LZ4_BLOCK):
        literal = data[at : at + LZ4_BLOCK]
        if len(literal) < 15:
            block = bytes([len(literal) << 4]) + literal
        else:
            full, rest = divmod(len(literal) - 15, 255)
            block = b"\xf0" + b"\xff" * full + bytes([rest]) + literal
        parts += [struct.pack("<I", len(block)), block]
    return b"".join(parts)
