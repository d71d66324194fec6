"""The only place that starts a process.

Every process gets an argv list, a clean environment, a closed stdin and its own process group (killed at the end),
and dies with its starter. Tools that parse untrusted bytes also get a `Sandbox`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hyper2kvmd.errors import BrokenInstallation, Kind, MigrationFailed
from hyper2kvmd.host.confine import landlock_abi
from hyper2kvmd.host.person import name_of

if TYPE_CHECKING:
    import asyncio

    import psutil

log = logging.getLogger(__name__)

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "HOME": "/"}
OUTPUT_TAIL = 2000
"""Characters of a failed tool's output in its error."""
CONFINE, KEEPER = Path(__file__).with_name("confine.py"), Path(__file__).with_name("keeper.py")
KEEPER_SECONDS = 10.0
"""For a keeper to end what it keeps: it needs less."""
LIBRARIES = ("/usr/lib", "/lib", "/lib64", "/usr/lib64", "/etc/ld.so.cache")
PACKAGES = {
    "qemu-img": "qemu-utils",
    "qemu-storage-daemon": "qemu-system-common",
    "nbdfuse": "libnbd-bin",
    "fusermount3": "fuse3",
    "virsh": "libvirt-clients",
    "sudo": "sudo",
    "qemu-system-x86_64": "qemu-system-x86",
}


DAY = 24 * 3600
"""Seconds."""
FILTER_END_SECONDS = 30.0
"""From the end of a tool's data to its own."""


@dataclass(frozen=True)
class Sandbox:
    """What a confined tool may access besides its libraries. Paths are absolute; a directory includes all below it."""

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    handles: tuple[int, ...] = ()
    """Open files that it inherits and may read as /proc/self/fd/N: no name can lead to another file."""
    address_space: int | None = 8 << 30
    file_size: int = 1 << 20
    """Largest size of a file that it writes, in bytes: enough for messages. Tools that write images get more."""
    cpu: int = DAY
    """Seconds of processor time: a limit for a tool that a disk makes loop."""


@dataclass(frozen=True)
class Completed:
    stdout: str
    stderr: str
    returncode: int


def confinement_available() -> bool:
    return landlock_abi() > 0


def no_new_privileges() -> bool:
    """Whether setuid programs, such as sudo and fusermount3, have no effect for this process."""
    status = Path("/proc/self/status").read_text()
    return re.search(r"^NoNewPrivs:\s*1", status, re.MULTILINE) is not None


def tool(name: str) -> str:
    """Absolute path of an external program."""
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        raise BrokenInstallation(
            "tool-missing",
            f"the program {name} is not installed",
            hint=f"Install the package {PACKAGES.get(name, name)}",
        )
    return path


def shell_line(argv: Sequence[str]) -> str:
    """`argv` as one printable line that a shell splits into the same words (bash, section "ANSI-C Quoting")."""
    return " ".join(map(_shell_word, argv))


def _shell_word(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    escaped = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return f"$'{''.join(escaped)}'"


def _command(argv: Sequence[str], sandbox: Sandbox | None) -> list[str]:
    log.debug("%s", shell_line(argv))
    binary = argv[0] if argv[0].startswith("/") else tool(argv[0])
    policy: dict[str, object] = {"parent": os.getpid(), "landlock": None}
    if sandbox is not None:
        policy["landlock"] = {
            "read": [*map(str, sandbox.read), *(f"/proc/self/fd/{handle}" for handle in sandbox.handles)],
            "write": [*(str(path) for path in sandbox.write), "/dev/null"],
            "execute": [binary, *LIBRARIES],
        }
        limits = {"address_space": sandbox.address_space, "file_size": sandbox.file_size, "cpu": sandbox.cpu}
        policy["limits"] = {name: value for name, value in limits.items() if value is not None}
    return [sys.executable, "-IS", str(CONFINE), json.dumps(policy), binary, *argv[1:]]


def _kept(argv: Sequence[str]) -> list[str]:
    """The command of a program whose descendants end with it, and with this process."""
    log.debug("%s", shell_line(argv))
    return [sys.executable, "-IS", str(KEEPER), str(os.getpid()), *argv]


def start(
    argv: Sequence[str],
    *,
    kept: bool = False,
    sandbox: Sandbox | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int,
    pass_fds: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a tool, which the caller must `stop`.

    `stderr` has no default: STDOUT is right only where both are messages, and never where stdout is data.
    `environment` is added to the clean one. With `kept`, argv[0] is a path, and everything that the program starts ends
    with it: `stop` it with KEEPER_SECONDS.
    sudo is started without `confine.py`: a setuid program cannot be killed when we die, and its helper ends when its
    socket closes.
    """
    if Path(argv[0]).name == "sudo":
        log.debug("%s", shell_line(argv))
        command = [tool(argv[0]) if argv[0] == "sudo" else argv[0], *argv[1:]]
    else:
        command = _kept(argv) if kept else _command(argv, sandbox)
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=(*pass_fds, *(sandbox.handles if sandbox else ())),
        env={**ENVIRONMENT, **(environment or {})},
        cwd="/",
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes], *, grace: float = 5.0) -> None:
    """End a process group: SIGTERM, then SIGKILL after `grace` seconds (at once for 0)."""
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        if process.poll() is not None or (number == signal.SIGTERM and grace == 0):
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@dataclass(frozen=True)
class Filter:
    """A running tool that turns one stream of bytes into another."""

    process: subprocess.Popen[bytes]
    messages: BinaryIO

    def read(self, size: int) -> bytes:
        """The next bytes of its data, b"" at the end."""
        assert self.process.stdout is not None  # noqa: S101 - narrows the type
        return self.process.stdout.read(size)

    def complaint(self) -> str | None:
        """Once its data has ended: its message if it failed, else None."""
        if self.process.wait(FILTER_END_SECONDS) == 0:
            return None
        self.messages.seek(0)
        said = self.messages.read(OUTPUT_TAIL).decode(errors="replace")
        return " / ".join(said.split("\n")).strip(" /") or f"exit status {self.process.returncode}"


@contextlib.contextmanager
def filtered(argv: Sequence[str], file: int, begin: int, end: int) -> Iterator[Filter]:
    """A confined tool that reads the bytes from `begin` to `end` of an open file as its stdin, and no others.

    It has access to no file. Its messages are kept apart from its data.
    """
    with tempfile.TemporaryFile() as messages:
        process = start(argv, sandbox=Sandbox(), stdin=subprocess.PIPE, stderr=messages.fileno())
        feeder = threading.Thread(target=_feed, args=(process, file, begin, end))
        try:
            feeder.start()
            yield Filter(process, messages)
        finally:
            stop(process, grace=0)
            if feeder.ident is not None:
                feeder.join()


def _feed(process: subprocess.Popen[bytes], file: int, begin: int, end: int) -> None:
    """Ends with the data, or with its reader."""
    assert process.stdin is not None  # noqa: S101 - narrows the type
    with contextlib.suppress(BrokenPipeError), process.stdin:
        while begin < end and (count := os.sendfile(process.stdin.fileno(), file, begin, end - begin)):
            begin += count


def run(
    argv: Sequence[str],
    *,
    sandbox: Sandbox | None = None,
    stall_seconds: float = 600.0,
    on_output: Callable[[str], None] | None = None,
    check: bool = True,
    environment: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    kept: bool = False,
) -> Completed:
    """Run a tool to its end.

    `on_output` gets stdout as it arrives. A tool is killed if it neither prints nor ends nor moves a byte for
    `stall_seconds`: big disks take long, so only a stall counts. With `check`, a non-zero exit raises `MigrationFailed`
    (`tool-failed`) with the tail of the output. A stall (`tool-stalled`) and a death by signal (`tool-killed`,
    `tool-cpu-limit`) always do. `environment` and `kept` are as for `start`.
    """
    process = subprocess.Popen(
        _kept(argv) if kept else _command(argv, sandbox),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=sandbox.handles if sandbox else (),
        env={**ENVIRONMENT, **(environment or {})},
        cwd="/",
        start_new_session=True,
    )
    name = Path(argv[0]).name
    chunks: dict[str, list[str]] = {"stdout": [], "stderr": []}
    try:
        assert process.stdout is not None and process.stderr is not None  # noqa: S101 - narrows the type
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, "stdout")
            selector.register(process.stderr, selectors.EVENT_READ, "stderr")
            deadline, moved = time.monotonic() + stall_seconds, 0
            while selector.get_map():
                ready = selector.select(timeout=max(0.0, deadline - time.monotonic()))
                if not ready:
                    before, moved = moved, _bytes_moved(process.pid)
                    if moved == before:
                        raise MigrationFailed(
                            "tool-stalled",
                            f"{name} made no progress for {stall_seconds:.0f} s",
                            hint="Check the storage that holds the source and the conversion directory, then retry",
                            kind=Kind.RETRY,
                        )
                deadline = time.monotonic() + stall_seconds
                for key, _ in ready:
                    data = os.read(key.fd, 65536)
                    if not data:
                        selector.unregister(key.fileobj)
                        continue
                    text = data.decode(errors="replace")
                    if key.data == "stdout" and on_output is not None:
                        on_output(text)
                    else:
                        chunks[key.data].append(text)
        process.wait()
    finally:
        stop(process, grace=KEEPER_SECONDS if kept else 0)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    stdout, stderr = "".join(chunks["stdout"]), _with_names("".join(chunks["stderr"]), sandbox)
    if process.returncode == -signal.SIGXCPU:
        raise MigrationFailed(
            "tool-cpu-limit",
            f"{name} was killed: it exceeded the CPU-time limit",
            hint="Copy or export the disk again: the disk makes the tool loop",
        )
    if process.returncode < 0:
        raise killed(name, -process.returncode)
    if check and process.returncode != 0:
        tail = (stderr.strip() or stdout.strip())[-OUTPUT_TAIL:] or f"exit status {process.returncode}"
        raise MigrationFailed(
            "tool-failed",
            f"{name} failed: {' / '.join(tail.splitlines())}",
            hint="Correct what the tool's message names, then retry",
            kind=Kind.OPERATOR,
        )
    return Completed(stdout=stdout, stderr=stderr, returncode=process.returncode)


def killed(name: str, number: int) -> MigrationFailed:
    """Something outside ended a tool, so that another attempt may succeed."""
    return MigrationFailed(
        "tool-killed",
        f"{name} was killed: {signal.strsignal(number)}",
        hint="Look for the reason in the kernel's log (most often, lack of memory), then retry",
        kind=Kind.RETRY,
    )


def ended_from_outside(status: int | None) -> bool:
    """Whether this exit status is that of a process that was killed, not of one that crashed."""
    return status is not None and -status in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_within(seconds: float, argv: Sequence[str], given: bytes, environment: Mapping[str, str]) -> str | None:
    """Run a program to its end, with `given` on its stdin; what went wrong, None if it succeeded.

    It is killed after that time. Raises OSError if it cannot be started.
    """
    with os.fdopen(os.memfd_create("input", os.MFD_CLOEXEC), "w+b") as stdin, tempfile.TemporaryFile() as said:
        stdin.write(given)
        stdin.seek(0)
        output = said.fileno()
        process = start(argv, kept=True, stdin=stdin.fileno(), stdout=output, stderr=output, environment=environment)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"it did not end within {seconds:.0f} s"
        finally:
            stop(process, grace=KEEPER_SECONDS)
        if status == 0:
            return None
        said.seek(max(0, said.seek(0, os.SEEK_END) - OUTPUT_TAIL))
        tail = " / ".join(said.read(OUTPUT_TAIL).decode(errors="replace").strip().splitlines())
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return f"{how}: {tail}" if tail else how


def _with_names(text: str, sandbox: Sandbox | None) -> str:
    """A tool's messages with the real paths of its inherited files."""
    for handle in sandbox.handles if sandbox else ():
        name = str(name_of(handle)).replace("\\", r"\\")
        text = re.sub(rf"/proc/self/fd/{handle}\b", name, text)
    return text


def _bytes_moved(pid: int) -> int:
    """Bytes read and written so far by a process of ours and those that it has started; 0 if it has ended."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(pid)
        return sum(map(_bytes_of, (started, *started.children(recursive=True))))
    return 0


def _bytes_of(process: psutil.Process) -> int:
    import psutil

    with contextlib.suppress(psutil.Error):
        counters = process.io_counters()
        return int(counters.read_chars + counters.write_chars)
    return 0


async def spawn_worker(argv: Sequence[str]) -> asyncio.subprocess.Process:
    """The daemon's worker process: stdin and stdout are pipes, stderr is the daemon's own (the journal)."""
    import asyncio  # a worker needs none

    return await asyncio.create_subprocess_exec(
        *_command(argv, None),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
        cwd="/",
        start_new_session=True,
        limit=1 << 24,
    )
