"""Bytes that are read from their start to their end: of a file, or of a compressed file while it is unpacked.

Memory is bounded whatever a file says, and so is what a small file can be unpacked to.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Literal, Protocol, TypeAlias

from hyper2kvmd.disk import faults as damage
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.machines.archives import faults

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Compression: TypeAlias = Literal["gzip", "bzip2", "xz", "zstd"]
MAGICS: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
STEP = 256 << 10
"""Bytes that are read or unpacked at once."""
MOST_MEMORY = 256 << 20
"""Bytes that a xz may need. Its strongest setting needs 65 MiB."""
MOST_RATIO = 2000
"""Bytes from one byte: more than twice what deflate can do. Only xz and zstd store long zeros in less."""
ALWAYS_ALLOWED = 1 << 30
"""Bytes that may be unpacked before the ratio counts."""
MOST_PADDING = 64 << 20
"""Bytes after an archive, packed or not."""
MOST_PARTS = 10_000
"""Compressed parts of any size. Beyond them, a part has `LEAST_PART` unpacked bytes on average; with bgzip, 64 KiB."""
LEAST_PART = 4096
FIRST_PIECE = 4096
"""Bytes that are read of a compressed part at first, since it may be short and what follows it is read again."""
LONGEST_MAGIC = 8
GZIP_WINDOW, RAW_WINDOW = 31, -15


class ByteStream(Protocol):
    """Bytes in order."""

    @property
    def position(self) -> int: ...

    def read(self, length: int) -> bytes:
        """The next `length` bytes; fewer only at the end. Raises MigrationFailed."""
        ...

    def skip(self, length: int) -> None:
        """Go forward. Raises as `read` does."""
        ...

    def require(self, length: int, name: str) -> None:
        """Raise MigrationFailed (`source-truncated`) if it is known that fewer bytes follow for the file `name`."""
        ...


class Plain:
    """A `ByteStream` of a file as it is, of which parts can be left out without reading them."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self.position = 0

    def read(self, length: int) -> bytes:
        data = self._file.read(self.position, length)
        self.position += len(data)
        return data

    def skip(self, length: int) -> None:
        self.position += length

    def require(self, length: int, name: str) -> None:
        if self.position + length > self._file.size:
            end = self.position + length
            raise damage.truncated(self._file.path, f"{name} in it ends at byte {end} of {self._file.size}")


class Decompressor(Protocol):
    """What Python's decompressors have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class Deflate:
    """zlib's decompressor with the methods of the others."""

    def __init__(self, window: int) -> None:
        self._inner = zlib.decompressobj(window)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


DECOMPRESSORS: Mapping[Compression | Literal["deflate"], Callable[[], Decompressor]] = {
    "gzip": lambda: Deflate(GZIP_WINDOW),
    "deflate": lambda: Deflate(RAW_WINDOW),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, MOST_MEMORY),
    "zstd": zstd.ZstdDecompressor,
}
ERRORS = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError, ValueError)


def compression_of(head: bytes) -> Compression | None:
    """By the first bytes of a file."""
    return next((name for magic, name in MAGICS if head.startswith(magic)), None)


class Input:
    """The bytes of a file in pieces, of which the end can be given back."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._held, self._first = b"", 0
        """Bytes of the file, and where they begin."""
        self.at = 0
        """The next byte of the file."""

    def peek(self, length: int) -> bytes:
        """Up to `length` bytes, at least `LONGEST_MAGIC` of them unless the file ends."""
        if self._first + len(self._held) - self.at < LONGEST_MAGIC:
            self._held, self._first = self._file.read(self.at, STEP), self.at
        start = self.at - self._first
        return self._held[start : start + length]

    def take(self, length: int) -> bytes:
        """As `peek`, and go forward."""
        data = self.peek(length)
        self.at += len(data)
        return data

    def give_back(self, length: int) -> None:
        """Go back, within what was taken last."""
        self.at -= length


class Unpacked:
    """A `ByteStream` of a compressed file; several in a row are one, as of gzip -c and xz."""

    def __init__(self, file: SourceFile, compression: Compression | Literal["deflate"]) -> None:
        self._file, self._compression = file, compression
        self._input = Input(file)
        self._inner: Decompressor = DECOMPRESSORS[compression]()
        self._piece = FIRST_PIECE
        """Bytes to take next. More with each piece of a part, so that little is given back after a short one."""
        self._parts, self._padding = 1, 0
        self._waiting = b""
        """Unpacked bytes that were not read yet."""
        self.position = 0

    def read(self, length: int) -> bytes:
        parts, missing = [], length
        while missing:
            if not self._waiting and not self._fill():
                break
            part, self._waiting = self._waiting[:missing], self._waiting[missing:]
            parts.append(part)
            missing -= len(part)
        self.position += length - missing
        return b"".join(parts)

    def skip(self, length: int) -> None:
        while length > 0 and (data := self.read(min(length, STEP))):
            length -= len(data)

    def require(self, length: int, name: str) -> None:
        """What follows is not known."""

    def finish(self) -> None:
        """Read what follows the last file, so that its checksum is verified. Raises as `read` does."""
        start = self.position
        while self.read(STEP):
            if self.position - start > MOST_PADDING:
                raise damage.corrupt(self._file.path, "other data follows the archive in it")

    def _fill(self) -> bool:
        """Unpack a little more; False at the end."""
        while not self._waiting:
            if self._inner.eof and not self._next_part():
                return False
            data = self._taken() if self._inner.needs_input else b""
            ended = self._inner.needs_input and not data
            self._waiting = self._decompressed(data)
            if ended and not self._waiting and not self._inner.eof:
                raise damage.truncated(self._file.path, f"its {self._compression} data ends too early")
            if self.position > ALWAYS_ALLOWED + MOST_RATIO * self._input.at:
                raise faults.too_large(
                    self._file.path, f"{self._input.at} bytes of it unpack to more than {self.position} bytes"
                )
        return True

    def _taken(self) -> bytes:
        data = self._input.take(self._piece)
        self._piece = min(2 * self._piece, STEP)
        return data

    def _decompressed(self, data: bytes) -> bytes:
        try:
            return self._inner.decompress(data, STEP)
        except MemoryError:
            raise
        except ERRORS as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> MigrationFailed:
        if isinstance(error, lzma.LZMAError) and "memory" in str(error).lower():
            return faults.too_large(self._file.path, f"unpacking it needs more than {MOST_MEMORY >> 20} MiB of memory")
        return damage.corrupt(self._file.path, f"its {self._compression} data cannot be unpacked ({error})")

    def _next_part(self) -> bool:
        """Begin the next compressed part; zeros may follow the last one."""
        self._input.give_back(len(self._inner.unused_data))
        if self._compression == "deflate":
            return False
        head = self._after_padding()
        if not head:
            return False
        if compression_of(head) != self._compression:
            raise self._followed_by_other_data()
        self._parts += 1
        if self._parts > MOST_PARTS + self.position // LEAST_PART:
            raise faults.too_large(
                self._file.path, f"{self._parts} compressed parts of it unpack to only {self.position} bytes"
            )
        self._inner, self._piece = DECOMPRESSORS[self._compression](), FIRST_PIECE
        return True

    def _after_padding(self) -> bytes:
        """The first bytes that are not zeros, which stay in the input."""
        while data := self._input.peek(FIRST_PIECE):
            zeros = len(data) - len(data.lstrip(b"\0"))
            self._input.take(zeros)
            self._padding += zeros
            if self._padding > MOST_PADDING:
                raise self._followed_by_other_data()
            if zeros < len(data):
                return self._input.peek(LONGEST_MAGIC)
        return b""

    def _followed_by_other_data(self) -> MigrationFailed:
        return damage.corrupt(self._file.path, f"other data follows its {self._compression} data")
