"""A disk or an image served over NBD by one confined, unprivileged qemu-storage-daemon, and optionally as a FUSE file.

This module controls both processes and the order in which they end. A frozen server would block users of its mount in
the kernel, beyond any time-out, so each server is polled and killed if silent: the mount then returns EIO and can be
removed.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.images.qcow2 import full_size
from hyper2kvmd.disk.images.qcow2.reader import open_image
from hyper2kvmd.disk.qemu import nbd
from hyper2kvmd.disk.qemu.qemu_img import linked, stored_bytes
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host import run
from hyper2kvmd.model.disks import Segment

WHOLE_DISK = ""
"""Name of the export for `as_file`."""
PERIOD = 5.0
"""Seconds between two polls."""
PATIENCE = 30.0
"""Seconds that a server may take to answer before it is killed."""
START_SECONDS = 30.0
STOP_SECONDS = 120.0
"""For a last flush of the image."""
DYING_SECONDS = 1.0
RELEASE_SECONDS = 20.0
"""For the kernel to close the last descriptor of a FUSE file."""


@dataclass(frozen=True)
class Backing:
    """The disk below a QCOW2 of ours, which is opened read-only."""

    path: Path
    driver: str
    """QEMU's name of its format."""
    settings: Mapping[str, object] = field(default_factory=dict)
    opened: Sequence[SourceFile] = ()
    """As for `export`."""


@dataclass(frozen=True)
class Exporter:
    """A running server; `socket` is its unix socket in `folder`, which is private to this export."""

    folder: Path
    socket: Path
    process: subprocess.Popen[bytes]

    def negotiate(self, name: str) -> nbd.Negotiated:
        """A connection to the export `name`, ready for transmission. Raises MigrationFailed."""
        return nbd.negotiate(self.socket, name)

    def kill(self) -> None:
        """Kill the server, so that all its users get an error. For a helper that does not return."""
        self.process.kill()

    def output(self) -> str:
        """The server's output as one line."""
        return " / ".join((self.folder / "output").read_text(errors="replace").split("\n")).strip(" /")[-2000:]


@contextmanager
def export(
    path: Path,
    fmt: str,
    folder: Path,
    *,
    exports: Mapping[str, Segment | None],
    writable: bool,
    backing: Backing | None = None,
    opened: Sequence[SourceFile] = (),
    settings: Mapping[str, object] | None = None,
) -> Iterator[Exporter]:
    """Serve `path` as the named exports (`None`: the whole disk; a segment: exactly that range) during the block.

    `backing` is the disk below a QCOW2 of ours. `opened` are the files of a source, that at
    `path` first: they are served by their descriptors, even if their names now lead to other files. The server can
    open only these, or `path` if there are none, and `backing`.
    Raises MigrationFailed: `image-damaged`, `exporter-failed` if it cannot serve the image or fails at the end of a
    writable export, `exporter-died` if it died during the block.
    """
    path = path.absolute()
    with (
        tempfile.TemporaryDirectory(prefix="export-", dir=folder, ignore_cleanup_errors=True) as private,
        ExitStack() as stack,
    ):
        folder = Path(private)
        below = stack.enter_context(_reachable(backing, folder)) if backing else None
        readable = (*(() if opened else (path,)), *((below.path,) if below and not below.opened else ()))
        inherited = (*opened, *(below.opened if below else ()))
        sandbox = run.Sandbox(read=readable, handles=tuple(file.fd for file in inherited))
        if writable:
            sandbox = replace(sandbox, write=(path,), file_size=_grown(path, fmt))
        served = stack.enter_context(linked(opened, folder)) if opened else path
        with _listen(folder / "nbd") as listener, (folder / "output").open("wb") as output:
            process = run.start(
                _command(
                    stored_bytes(served, opened[0] if opened else None, locking="on"),
                    fmt,
                    settings or {},
                    exports,
                    writable,
                    listener.fileno(),
                    below,
                ),
                sandbox=sandbox,
                stdout=output.fileno(),
                stderr=subprocess.STDOUT,
                pass_fds=(listener.fileno(),),
            )
        exporter = Exporter(folder, folder / "nbd", process)
        try:
            _await_answer(exporter, path, next(iter(exports)))
            with _watched(lambda: _sign_of_life(exporter, next(iter(exports))), process):
                yield exporter
        except (OSError, MigrationFailed) as error:
            ours = isinstance(error, MigrationFailed) and error.code in ("exporter-failed", "exporter-died")
            if ours or not _has_ended(process) or process.returncode == 0:
                raise
            raise _died(exporter, path) from error
        finally:
            already_dead = process.poll() is not None
            run.stop(process, grace=STOP_SECONDS if writable else 5.0)
        if already_dead:
            raise _died(exporter, path)
        if writable and run.ended_from_outside(process.returncode):
            raise _died(exporter, path)
        if writable and process.returncode != 0:
            raise _failed(exporter, path, "did not write everything back")


@contextmanager
def as_file(exporter: Exporter) -> Iterator[int]:
    """The whole disk of a writable exporter as an open file, through nbdfuse, for kernels without NBD.

    The FUSE mount is detached as soon as the file is open, and nbdfuse ends when the last descriptor is closed. nbdfuse
    is not in the sandbox because fusermount3 is setuid; it parses only NBD.
    Raises MigrationFailed: `fuse-failed`, `fuse-died` if it died during the block, `image-busy` if a process still uses
    the file at the end.
    """
    mountpoint = exporter.folder / "fuse"
    mountpoint.mkdir()
    with (exporter.folder / "fuse-output").open("wb") as output, nbd.connect(exporter.socket) as connection:
        process = run.start(
            ["nbdfuse", "-o", "auto_unmount", str(mountpoint), "--fd", str(connection.fileno())],
            stdout=output.fileno(),
            stderr=subprocess.STDOUT,
            pass_fds=(connection.fileno(),),
        )
    try:
        with _watched(lambda: os.statvfs(mountpoint), process):
            handle = _open_when_there(mountpoint / "nbd", process, exporter.folder / "fuse-output")
            anchor = os.open(f"/proc/self/fd/{handle}", os.O_PATH | os.O_CLOEXEC)
            run.run(["fusermount3", "-u", "-z", str(mountpoint)])
        try:
            with _watched(lambda: os.fstatvfs(anchor), process):
                try:
                    yield handle
                except (OSError, MigrationFailed) as error:
                    if not _has_ended(process):
                        raise
                    raise _fuse_died(process) from error
                finally:
                    os.close(handle)
        finally:
            os.close(anchor)
        try:
            process.wait(RELEASE_SECONDS)
        except subprocess.TimeoutExpired:
            raise MigrationFailed(
                "image-busy",
                "a process still uses the image at the end of its repair",
                hint="Look for processes that hold files of this job open, then retry",
                kind=Kind.RETRY,
            ) from None
    finally:
        run.stop(process, grace=0)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a server has ended or is ending: its clients' I/O errors arrive before its exit status."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(DYING_SECONDS)
    return process.returncode is not None


def _grown(path: Path, fmt: str) -> int:
    """Bytes of an image file after its whole disk was written anew behind its content."""
    size = path.stat().st_size
    if fmt == "raw":
        return size
    with open_image(path, "qcow2") as image:
        return size + full_size(image.virtual_size)


@contextmanager
def _reachable(backing: Backing, folder: Path) -> Iterator[Backing]:
    """`backing` with a path that leads to its open files, if it has any."""
    if not backing.opened:
        yield replace(backing, path=backing.path.absolute())
        return
    with linked(backing.opened, folder) as path:
        yield replace(backing, path=path)


def layer(backing: Backing) -> dict[str, object]:
    """A backing disk for QEMU's -blockdev: read-only. A QCOW2 gets no backing file from its own header."""
    opened = backing.opened[0] if backing.opened else None
    file = stored_bytes(backing.path, opened, **{"read-only": True})
    bottom: dict[str, object] = {"backing": None} if backing.driver == "qcow2" else {}
    return {**backing.settings, "driver": backing.driver, "file": file, "read-only": True, **bottom}


def _command(
    file: dict[str, object],
    fmt: str,
    settings: Mapping[str, object],
    exports: Mapping[str, Segment | None],
    writable: bool,
    listener: int,
    backing: Backing | None,
) -> list[str]:
    disk: dict[str, object] = {**settings, "driver": fmt, "file": file, "node-name": "disk", "read-only": not writable}
    if fmt == "qcow2":
        disk["backing"] = backing and layer(backing)
    argv = ["qemu-storage-daemon", "--blockdev", json.dumps(disk)]
    argv += ["--nbd-server", json.dumps({"addr": {"type": "fd", "str": str(listener)}})]
    for index, (name, segment) in enumerate(exports.items()):
        node = "disk"
        if segment is not None:
            node = f"range{index}"
            part = {"driver": "raw", "file": "disk", "offset": segment.offset, "size": segment.length}
            argv += ["--blockdev", json.dumps({**part, "node-name": node, "read-only": not writable})]
        wanted = {"type": "nbd", "id": f"export{index}", "node-name": node, "name": name, "writable": writable}
        argv += ["--export", json.dumps(wanted)]
    return argv


@contextmanager
def _listen(path: Path) -> Iterator[socket.socket]:
    """A listening unix socket with a path of any length; the server inherits it, so clients can connect at once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        handle = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{handle}/{path.name}")
        finally:
            os.close(handle)
        listener.listen(64)
        yield listener


def _await_answer(exporter: Exporter, path: Path, name: str) -> None:
    try:
        nbd.negotiate(exporter.socket, name, timeout=START_SECONDS).sock.close()
    except MigrationFailed as error:
        with suppress(subprocess.TimeoutExpired):
            exporter.process.wait(1)
        if run.ended_from_outside(exporter.process.returncode):
            raise _died(exporter, path) from error
        raise _failed(exporter, path, "cannot serve the image") from error


def _sign_of_life(exporter: Exporter, name: str) -> None:
    nbd.negotiate(exporter.socket, name, timeout=PATIENCE).sock.close()


@contextmanager
def _watched(ask: Callable[[], object], process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill `process` if `ask` does not return in time; an error also counts as an answer."""
    over = threading.Event()

    def ask_once() -> None:
        with suppress(OSError, MigrationFailed):
            ask()

    def watch() -> None:
        while not over.wait(PERIOD):
            asking = threading.Thread(target=ask_once, daemon=True)
            asking.start()
            asking.join(PATIENCE)
            if asking.is_alive():
                process.kill()
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _open_when_there(path: Path, process: subprocess.Popen[bytes], output: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        time.sleep(0.01)
    if run.ended_from_outside(process.poll()):
        raise _fuse_died(process)
    said = " / ".join(output.read_text(errors="replace").split("\n")).strip(" /")[-1000:]
    raise MigrationFailed(
        "fuse-failed",
        f"nbdfuse did not serve the image: {said or f'exit status {process.poll()}'}",
        hint="Make sure that /dev/fuse exists and that fusermount3 is setuid root, then retry",
        kind=Kind.OPERATOR,
    )


def _fuse_died(process: subprocess.Popen[bytes]) -> MigrationFailed:
    return MigrationFailed(
        "fuse-died",
        f"nbdfuse died while it served the image: status {process.returncode}",
        hint="Check memory and storage of this host (a server that freezes is killed), then retry",
        kind=Kind.RETRY,
    )


def _died(exporter: Exporter, path: Path) -> MigrationFailed:
    return MigrationFailed(
        "exporter-died",
        f"qemu-storage-daemon died while it served {path}: "
        f"{exporter.output() or f'status {exporter.process.returncode}'}",
        hint="Check memory and storage of this host (a server that freezes is killed), then retry",
        kind=Kind.RETRY,
    )


def _failed(exporter: Exporter, path: Path, what: str) -> MigrationFailed:
    said = exporter.output() or f"exit status {exporter.process.returncode}"
    return MigrationFailed(
        "exporter-failed",
        f"qemu-storage-daemon {what} {path}: {said}",
        hint="Correct what the tool's message names, then retry",
        kind=Kind.OPERATOR,
    )
