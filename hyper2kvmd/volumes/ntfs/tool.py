"""The confined process that runs child.py, and the exchange of messages with it. Nothing that it says is trusted."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from hyper2kvmd import units
from hyper2kvmd.errors import BrokenInstallation, MigrationFailed
from hyper2kvmd.host import run
from hyper2kvmd.volumes.fat import Blocks

PIPE = subprocess.PIPE
CHILD = Path(__file__).with_name("child.py")
MESSAGE = struct.Struct("<cQI")
REQUEST = struct.Struct("<IQ")
READ_LIMIT = 1 << 20
"""Bytes in one request of the process for bytes of the volume."""
TEXT_LIMIT = 32 << 20
DATA_LIMIT = 256 << 20
"""Bytes in one answer."""
ADDRESS_SPACE = 2 << 30
CPU_SECONDS = 300
SILENCE_SECONDS = 120.0
ANSWER_SECONDS = 1800.0
END_SECONDS = 5.0
"""For one answer with all reads that it needs: a process that has been taken over could ask for bytes for ever."""
MESSAGES_KEPT = 2000
PIECE = 1 << 20
LIBRARY_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu")

OPENING = "open"
"""The first operation, which checks the library's structures."""
Answer = Mapping[str, object]


class Tool:
    """A running process, which serves one volume. Use `running`."""

    def __init__(self, process: subprocess.Popen[bytes], blocks: Blocks | None) -> None:
        assert process.stdin and process.stdout and process.stderr  # noqa: S101 - narrows the types
        self._process, self._blocks = process, blocks
        self._to, self._from = process.stdin.fileno(), process.stdout.fileno()
        self._messages, self._messages_at = bytearray(), process.stderr.fileno()
        self._deadline = time.monotonic() + ANSWER_SECONDS
        for handle in (self._to, self._from, self._messages_at):
            os.set_blocking(handle, False)

    def ask(self, operation: str, data: bytes = b"", **arguments: object) -> tuple[Answer, bytes]:
        """Its answer, and the data of that. Raises OSError if it reports one, and MigrationFailed.

        `ntfs-tool-died` if it is dead or silent, `ntfs-tool-faulty` if it breaks the rules.
        """
        self._deadline = time.monotonic() + ANSWER_SECONDS
        text = json.dumps({"op": operation, **arguments}).encode()
        self._send(REQUEST.pack(len(text), len(data)) + text)
        self._send(data)
        return self.answer(str(arguments.get("path", "")), is_ready=operation != OPENING)

    def answer(self, path: str = "", *, is_ready: bool = False) -> tuple[Answer, bytes]:
        """Until it is ready, it may say that the library is not the known one."""
        while True:
            kind, count, length = MESSAGE.unpack(self._receive(MESSAGE.size))
            if kind == b"R":
                self._serve(count, length)
                continue
            if kind != b"A" or count > DATA_LIMIT or length > TEXT_LIMIT:
                raise faulty("an answer has an impossible size")
            found = _parsed(self._receive(length))
            data = self._receive(count)
            if "unknown" in found:
                if is_ready:
                    raise faulty("it calls its library unknown after it has used it")
                raise library_missing(_plain(str(found["unknown"])))
            if "full" in found:
                raise _too_many_changes()
            if "errno" in found:
                raise _reported(found, path)
            return found, data

    def _serve(self, offset: int, length: int) -> None:
        if self._blocks is None or length > READ_LIMIT or offset + length > self._blocks.size:
            raise faulty(f"it asked for {length} bytes at {offset}")
        self._send(self._blocks.read(offset, length))

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._wait_for(self._to, selectors.EVENT_WRITE)
            try:
                view = view[os.write(self._to, view[:PIECE]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._died() from None

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            self._wait_for(self._from, selectors.EVENT_READ)
            try:
                piece = os.read(self._from, min(PIECE, length - len(data)))
            except BlockingIOError:
                continue
            if not piece:
                raise self._died()
            data += piece
        return bytes(data)

    def _wait_for(self, handle: int, event: int) -> None:
        """Until the process reads or writes; its messages are collected meanwhile."""
        end = time.monotonic() + SILENCE_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(handle, event)
            selector.register(self._messages_at, selectors.EVENT_READ)
            while ready := selector.select(max(0.0, end - time.monotonic())):
                ours = [key.fd for key, _ in ready]
                if self._messages_at in ours and not self._collect():
                    selector.unregister(self._messages_at)
                if time.monotonic() >= self._deadline:
                    raise self._died(f"it had no answer after {ANSWER_SECONDS:.0f} s")
                if handle in ours:
                    return
        raise self._died(f"it was silent for {SILENCE_SECONDS:.0f} s")

    def _collect(self) -> bool:
        """Whether more messages may come."""
        try:
            piece = os.read(self._messages_at, PIECE)
        except BlockingIOError:
            return True
        self._messages += piece
        del self._messages[:-MESSAGES_KEPT]
        return bool(piece)

    def _ended(self) -> int | None:
        """Its exit status, which may come a little after the end of its output; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(END_SECONDS)
        return None

    def _died(self, reason: str = "") -> MigrationFailed:
        if not reason and run.ended_from_outside(self._ended()):
            return run.killed("the process that reads NTFS", -self._process.returncode)
        run.stop(self._process, grace=0)
        said = _plain(" / ".join(self._messages.decode(errors="replace").split("\n")).strip(" /"))
        why = reason or said or f"exit status {self._process.returncode}"
        return MigrationFailed(
            "ntfs-tool-died",
            f"the process that reads NTFS ended without an answer: {why}",
            hint="Run chkdsk on the volume in the guest, shut the guest down, export it again. If it is sound, report "
            "this bug",
        )


@contextmanager
def running(blocks: Blocks | None) -> Iterator[Tool]:
    """The process, ready for requests about `blocks`. Raises as `Tool.ask`, and BrokenInstallation
    (`ntfs-library-missing`).
    """
    executable = os.path.realpath(sys.executable)
    stdlib = (Path(sys.base_prefix, name) for name in ("lib", "lib64"))
    sandbox = run.Sandbox(read=(CHILD, *stdlib), address_space=ADDRESS_SPACE, file_size=0, cpu=CPU_SECONDS)
    process = run.start([executable, "-IS", str(CHILD)], sandbox=sandbox, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    try:
        tool = Tool(process, blocks)
        tool.answer()
        yield tool
    finally:
        run.stop(process, grace=0)
        if process.stdin is not None:
            process.stdin.close()


def check_library() -> None:
    """Raises BrokenInstallation (`ntfs-library-missing`) if NTFS volumes cannot be read on this host."""
    with running(None):
        pass


def _parsed(text: bytes) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise faulty("an answer is not understood")
    return found


def _number(found: Answer, key: str) -> int:
    value = found.get(key)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise faulty(f"an answer has no valid {key}")
    return value


def _reported(found: Answer, path: str) -> OSError:
    number = _number(found, "errno")
    if number not in errno.errorcode:
        raise faulty(f"an answer has the unknown error {number}")
    return OSError(number, _plain(str(found.get("error"))) or os.strerror(number), path)


def _plain(text: str) -> str:
    """What the process says, for a message of one line."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:MESSAGES_KEPT])


def faulty(reason: str) -> MigrationFailed:
    return MigrationFailed(
        "ntfs-tool-faulty",
        f"the process that reads NTFS broke the rules: {reason}. The volume may be made to attack it",
        hint="Run chkdsk on the volume in the guest, look for malware there, then export it again. If the volume is "
        "sound, report this bug",
    )


def _too_many_changes() -> MigrationFailed:
    return MigrationFailed(
        "ntfs-change-limit",
        f"the repair would change more than {units.size(DATA_LIMIT)} of an NTFS volume at once, which is the limit of "
        "this program. The image is unchanged",
        hint="Run `compact /u /s:C:\\Windows\\System32\\config *` in the guest if its registry is compressed, then "
        "export it again, or set guest: none",
    )


def library_missing(reason: str) -> BrokenInstallation:
    others = sorted({path.name for folder in LIBRARY_FOLDERS for path in Path(folder).glob("libntfs-3g.so.[0-9]*")})
    seen = f"; installed: {', '.join(others)}" if others else ""
    return BrokenInstallation(
        "ntfs-library-missing",
        f"libntfs-3g, which repairs Windows guests, cannot be used: {reason}{seen}",
        hint="Install the package libntfs-3g89 (Debian 12), libntfs-3g89t64 (Debian 13, Ubuntu), libntfs-3g91 "
        "(Debian 14) or ntfs-3g-libs (Fedora, EPEL)",
    )


Field = Literal["folder", "size", "attributes", "security", "free"]


def field(found: Answer, key: Field) -> int:
    """A number of an answer. Raises MigrationFailed (`ntfs-tool-faulty`)."""
    value = found.get(key)
    return int(value) if isinstance(value, bool) else _number(found, key)
