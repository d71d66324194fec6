"""A small NBD client: negotiation for the later owner of the socket, exact reads and writes for our parsers.

It supports only fixed newstyle negotiation, NBD_OPT_GO and simple replies. A hostile image may have compromised the
server, so every magic, length and handle is checked, and every wait has a time-out.

Source: the NBD protocol document (doc/proto.md of the NetworkBlockDevice project).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from hyper2kvmd.errors import Kind, MigrationFailed

NBDMAGIC = b"NBDMAGIC"
IHAVEOPT = b"IHAVEOPT"
OPTION_REPLY = 0x3E889045565A9
REQUEST = 0x25609513
SIMPLE_REPLY = 0x67446698
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
OPT_GO = 7
REP_ACK, REP_INFO, REP_ERROR = 1, 3, 1 << 31
INFO_EXPORT, INFO_BLOCK_SIZE = 0, 3
CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH = 0, 1, 2, 3
VERBS = {CMD_READ: "read", CMD_WRITE: "write", CMD_FLUSH: "flush"}
FLAG_SEND_FLUSH = 4
MAX_OPTION_REPLY = 64 * 1024
MAX_INFO_REPLIES = 64
DEFAULT_MAX_BLOCK = 32 << 20
TIMEOUT = 30.0
"""Seconds that a server may stay silent in the middle of an exchange."""
SUN_PATH_MAX = 107


@dataclass(frozen=True)
class Negotiated:
    """A socket in transmission phase, and the server's data about the export. The owner closes `sock`."""

    sock: socket.socket
    size: int
    """Bytes."""
    flags: int
    """Transmission flags as sent (NBD_FLAG_*)."""
    min_block: int = 1
    max_block: int = DEFAULT_MAX_BLOCK


def connect(path: Path, *, timeout: float = TIMEOUT) -> socket.socket:
    """Connect to a unix stream socket with a path of any length. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        if len(os.fsencode(path)) <= SUN_PATH_MAX:
            sock.connect(str(path))
            return sock
        handle = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{handle}/{path.name}")
        finally:
            os.close(handle)
    except BaseException:
        sock.close()
        raise
    return sock


def negotiate(socket_path: Path, name: str, *, timeout: float = TIMEOUT) -> Negotiated:
    """Open the export `name` at `socket_path`, ready for transmission.

    Raises MigrationFailed (`nbd-unreachable`, `nbd-protocol`, `nbd-refused`).
    """
    try:
        sock = connect(socket_path, timeout=timeout)
    except OSError as error:
        raise _unreachable(f"no server responds at {socket_path}", error) from error
    try:
        return _handshake(sock, name)
    except OSError as error:
        sock.close()
        raise _unreachable(f"the NBD server at {socket_path} stopped responding", error) from error
    except BaseException:
        sock.close()
        raise


class NbdReader:
    """Exact reads of one export, for parsers that take bytes at offsets. Use as a context manager."""

    def __init__(self, socket_path: Path, name: str, *, timeout: float = TIMEOUT) -> None:
        self._export = negotiate(socket_path, name, timeout=timeout)
        self._handle = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self._export.size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes at `offset`.

        Raises MigrationFailed: `disk-range` for a range outside the export, `disk-read-failed` for an error that
        the server reports, `nbd-unreachable` and `nbd-protocol` for a faulty server.
        """
        start, end = self._aligned(offset, length)
        pieces = [self._ask(CMD_READ, at, size) for at, size in self._steps(start, end)]
        return b"".join(pieces)[offset - start : offset - start + length]

    def _aligned(self, offset: int, length: int) -> tuple[int, int]:
        """Whole blocks around a byte range."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise MigrationFailed(
                "disk-range",
                f"{length} bytes at {offset} are not inside a disk of {self.size} bytes",
                hint="Export the disk again: its own tables are damaged or truncated",
            )
        align = self._export.min_block
        start = offset - offset % align
        return start, min(self.size, offset + length + -(offset + length) % align) if length else start

    def _steps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        step = self._export.max_block - self._export.max_block % self._export.min_block
        return ((at, min(step, end - at)) for at in range(start, end, step))

    def _ask(self, command: int, offset: int, length: int, data: bytes = b"") -> bytes:
        self._handle += 1
        sock = self._export.sock
        try:
            sock.sendall(struct.pack(">IHHQQI", REQUEST, 0, command, self._handle, offset, length) + data)
            magic, error, handle = struct.unpack(">IIQ", _receive(sock, 16))
            if magic != SIMPLE_REPLY or handle != self._handle:
                raise _protocol(f"answered a {VERBS[command]} with something else")
            if error:
                raise _refused(command, offset, length, os.strerror(error))
            return _receive(sock, length) if command == CMD_READ else b""
        except OSError as error:
            raise _unreachable("the NBD server stopped responding", error) from error

    def close(self) -> None:
        try:
            self._export.sock.sendall(struct.pack(">IHHQQI", REQUEST, 0, CMD_DISC, 0, 0, 0))
        except OSError:
            pass  # the connection is closed already
        finally:
            self._export.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NbdWriter(NbdReader):
    """Also exact writes. Raises as `read` does, and MigrationFailed (`image-write-failed`)."""

    def write(self, offset: int, data: bytes) -> None:
        start, end = self._aligned(offset, len(data))
        before = self.read(start, offset - start)
        behind = self.read(offset + len(data), end - offset - len(data))
        whole = before + data + behind
        for at, size in self._steps(start, end):
            self._ask(CMD_WRITE, at, size, whole[at - start : at - start + size])

    def flush(self) -> None:
        """Return when all writes are on the disk."""
        if self._export.flags & FLAG_SEND_FLUSH:
            self._ask(CMD_FLUSH, 0, 0)


def _refused(command: int, offset: int, length: int, reason: str) -> MigrationFailed:
    if command == CMD_READ:
        return MigrationFailed(
            "disk-read-failed",
            f"{length} bytes at {offset} cannot be read: {reason}",
            hint="Check the storage that holds the disk, or export it again",
            kind=Kind.OPERATOR,
        )
    return MigrationFailed(
        "image-write-failed",
        f"{length} bytes at {offset} cannot be written: {reason}",
        hint="Check space and storage of the conversion directory, then retry",
        kind=Kind.RETRY,
    )


def _handshake(sock: socket.socket, name: str) -> Negotiated:
    greeting = _receive(sock, 18)
    if greeting[:16] != NBDMAGIC + IHAVEOPT:
        raise _protocol("did not greet as a newstyle server")
    flags = struct.unpack(">H", greeting[16:])[0]
    if not flags & FIXED_NEWSTYLE:
        raise _protocol("does not support the fixed newstyle handshake")
    sock.sendall(struct.pack(">I", FIXED_NEWSTYLE | (flags & NO_ZEROES)))
    wanted = name.encode()
    body = struct.pack(">I", len(wanted)) + wanted + struct.pack(">HH", 1, INFO_BLOCK_SIZE)
    sock.sendall(IHAVEOPT + struct.pack(">II", OPT_GO, len(body)) + body)
    export: tuple[int, int] | None = None
    blocks = (1, DEFAULT_MAX_BLOCK)
    for _ in range(MAX_INFO_REPLIES):
        magic, option, kind, length = struct.unpack(">QIII", _receive(sock, 20))
        if magic != OPTION_REPLY or option != OPT_GO or length > MAX_OPTION_REPLY:
            raise _protocol("sent a malformed option reply")
        data = _receive(sock, length)
        if kind & REP_ERROR:
            raise MigrationFailed(
                "nbd-refused",
                f"the NBD server refuses the export {name!r}: {data.decode(errors='replace') or hex(kind)}",
                hint="Report this bug in hyper2kvmd with the job's log",
            )
        if kind == REP_ACK:
            if export is None or length:
                raise _protocol("acknowledged an export without describing it")
            return Negotiated(sock, *export, *blocks)
        if kind != REP_INFO or length < 2:
            raise _protocol(f"sent an unknown option reply {kind}")
        export, blocks = _information(data, export, blocks)
    raise _protocol("describes the export without end")


def _information(
    data: bytes, export: tuple[int, int] | None, blocks: tuple[int, int]
) -> tuple[tuple[int, int] | None, tuple[int, int]]:
    what = struct.unpack(">H", data[:2])[0]
    if what == INFO_EXPORT:
        if len(data) != 12:
            raise _protocol("describes the export in a wrong length")
        size, flags = struct.unpack(">QH", data[2:])
        if not flags & 1 or size >= 1 << 63:
            raise _protocol("describes an impossible export")
        return (size, flags), blocks
    if what == INFO_BLOCK_SIZE:
        if len(data) != 14:
            raise _protocol("describes block sizes in a wrong length")
        least, _preferred, most = struct.unpack(">III", data[2:])
        if not 1 <= least <= 65536 or least & (least - 1) or most < least:
            raise _protocol("describes impossible block sizes")
        return export, (least, min(most, DEFAULT_MAX_BLOCK))
    return export, blocks


def _receive(sock: socket.socket, length: int) -> bytes:
    data = bytearray(length)
    view, got = memoryview(data), 0
    while got < length:
        count = sock.recv_into(view[got:])
        if count == 0:
            raise ConnectionResetError("the connection was closed")
        got += count
    return bytes(data)


def _protocol(what: str) -> MigrationFailed:
    return MigrationFailed(
        "nbd-protocol",
        f"the NBD server {what}",
        hint="Verify the QEMU packages of this host (dpkg --verify, rpm -V), then retry",
        kind=Kind.OPERATOR,
    )


def _unreachable(what: str, error: OSError) -> MigrationFailed:
    return MigrationFailed(
        "nbd-unreachable",
        f"{what}: {error.strerror or error}",
        hint="Read the exporter's own message in the job's log, then retry",
        kind=Kind.RETRY,
    )
