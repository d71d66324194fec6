"""The NBD client against servers that say wrong things; the right ones are in tests/integration/test_export.py."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyper2kvmd.disk.qemu.nbd import NbdReader, negotiate
from hyper2kvmd.errors import MigrationFailed

GREETING = b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)
SIZE = 1 << 20


def reply(kind: int, data: bytes = b"", *, magic: int = 0x3E889045565A9, option: int = 7) -> bytes:
    return struct.pack(">QIII", magic, option, kind, len(data)) + data


EXPORT = reply(3, struct.pack(">HQH", 0, SIZE, 1))
BLOCKS = reply(3, struct.pack(">HIII", 3, 512, 4096, 65536))
ACK = reply(1)


@contextmanager
def saying(folder: Path, words: bytes, answers: tuple[bytes, ...] = ()) -> Iterator[Path]:
    """A server that says `words`, then one of `answers` to each read, and hangs up."""
    path = folder / "nbd"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(words)
                if not answers:
                    connection.shutdown(socket.SHUT_WR)
                connection.recv(4)
                length = struct.unpack(">8sII", connection.recv(16, socket.MSG_WAITALL))[2]
                connection.recv(length, socket.MSG_WAITALL)
                for answer in answers:
                    request = connection.recv(28, socket.MSG_WAITALL)
                    connection.sendall(answer.replace(b"HANDLE!!", request[8:16]))

        def serve_quietly() -> None:
            try:
                serve()
            except (OSError, struct.error):
                return  # the client hung up first, as it should on nonsense

        thread = threading.Thread(target=serve_quietly)
        thread.start()
        try:
            yield path
        finally:
            thread.join()
            path.unlink()


def test_what_a_server_says_is_understood(tmp_path: Path) -> None:
    with saying(tmp_path, GREETING + EXPORT + BLOCKS + reply(3, struct.pack(">H", 9) + b"new") + ACK) as path:
        found = negotiate(path, "disk")
        found.sock.close()
    assert (found.size, found.flags) == (SIZE, 1)
    assert (found.min_block, found.max_block) == (512, 65536)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (b"", "nbd-unreachable"),
        (GREETING[:10], "nbd-unreachable"),
        (b"NBDMAGIC" + b"\x00\x00\x42\x02\x81\x86\x12\x53" + bytes(2), "nbd-protocol"),
        (b"NBDMAGICIHAVEOPT" + struct.pack(">H", 0), "nbd-protocol"),
        (GREETING + ACK, "nbd-protocol"),
        (GREETING + BLOCKS + ACK, "nbd-protocol"),
        (GREETING + EXPORT + reply(1, b"x"), "nbd-protocol"),
        (GREETING + EXPORT, "nbd-unreachable"),
        (GREETING + reply(1, magic=1), "nbd-protocol"),
        (GREETING + EXPORT + reply(1, option=1), "nbd-protocol"),
        (GREETING + EXPORT + reply(2), "nbd-protocol"),
        (GREETING + reply(3, b"x"), "nbd-protocol"),
        (GREETING + struct.pack(">QIII", 0x3E889045565A9, 7, 3, 1 << 31), "nbd-protocol"),
        (GREETING + reply(3, struct.pack(">HQHH", 0, SIZE, 1, 0)) + ACK, "nbd-protocol"),
        (GREETING + reply(3, struct.pack(">HQH", 0, SIZE, 0)) + ACK, "nbd-protocol"),
        (GREETING + reply(3, struct.pack(">HQH", 0, 1 << 63, 1)) + ACK, "nbd-protocol"),
        (GREETING + EXPORT + reply(3, struct.pack(">HII", 3, 1, 1)) + ACK, "nbd-protocol"),
        (GREETING + EXPORT + reply(3, struct.pack(">HIII", 3, 0, 1, 1)) + ACK, "nbd-protocol"),
        (GREETING + EXPORT + reply(3, struct.pack(">HIII", 3, 3, 4096, 4096)) + ACK, "nbd-protocol"),
        (GREETING + EXPORT + reply(3, struct.pack(">HIII", 3, 4096, 4096, 512)) + ACK, "nbd-protocol"),
        (GREETING + EXPORT * 100, "nbd-protocol"),
        (GREETING + reply((1 << 31) + 6, b"no such export"), "nbd-refused"),
    ],
)
def test_a_server_that_negotiates_nonsense(tmp_path: Path, words: bytes, code: str) -> None:
    with saying(tmp_path, words) as path, pytest.raises(MigrationFailed) as caught:
        negotiate(path, "disk")
    assert caught.value.code == code


def test_a_server_that_stays_silent(tmp_path: Path) -> None:
    path = tmp_path / "nbd"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(MigrationFailed) as caught:
            negotiate(path, "disk", timeout=0.05)
    assert caught.value.code == "nbd-unreachable"


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(MigrationFailed) as caught:
        negotiate(tmp_path / "nbd", "disk")
    assert caught.value.code == "nbd-unreachable"


def answer(data: bytes, *, magic: int = 0x67446698, error: int = 0, handle: bytes = b"HANDLE!!") -> bytes:
    return struct.pack(">II", magic, error) + handle + data


def failure(reader: NbdReader, offset: int, length: int) -> str:
    with pytest.raises(MigrationFailed) as caught:
        reader.read(offset, length)
    return caught.value.code


def test_reads_are_aligned_and_split(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1024
    first, second = content[512:66048], content[66048:66560]
    with (
        saying(tmp_path, GREETING + EXPORT + BLOCKS + ACK, (answer(first), answer(second))) as path,
        NbdReader(path, "disk") as reader,
    ):
        assert reader.size == SIZE
        assert reader.read(515, 65_600) == content[515 : 515 + 65_600]
        assert reader.read(100, 0) == b""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (answer(bytes(512), magic=1), "nbd-protocol"),
        (answer(bytes(512), handle=b"another!"), "nbd-protocol"),
        (answer(b"", error=5), "disk-read-failed"),
        (answer(bytes(511)), "nbd-unreachable"),
        (b"", "nbd-unreachable"),
    ],
)
def test_a_server_that_answers_reads_with_nonsense(tmp_path: Path, words: bytes, code: str) -> None:
    with saying(tmp_path, GREETING + EXPORT + ACK, (words,)) as path, NbdReader(path, "disk") as reader:
        code_seen = failure(reader, 0, 512)
    assert code_seen == code


@pytest.mark.parametrize(("offset", "length"), [(SIZE, 1), (SIZE - 1, 2), (-1, 1), (0, -1)])
def test_reads_outside_are_never_sent(tmp_path: Path, offset: int, length: int) -> None:
    with saying(tmp_path, GREETING + EXPORT + ACK, (b"",)) as path, NbdReader(path, "disk") as reader:
        code_seen = failure(reader, offset, length)
    assert code_seen == "disk-range"
