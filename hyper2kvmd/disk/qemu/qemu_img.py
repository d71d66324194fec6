"""qemu-img, confined to the files of one migration, with explicit formats everywhere.

Its exit status is never taken for evidence: callers look at what it wrote.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from hyper2kvmd.disk import direct, kernel
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.images.qcow2 import full_size
from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host import run
from hyper2kvmd.host.space import disk_full
from hyper2kvmd.model.disks import SourceFormat

PERCENT = re.compile(r"\((\d+\.\d+)/100%\)")
PER_THREAD, MOST_REQUESTS = 8, 16
"""Requests that qemu-img has in flight, for each thread that it may keep busy, and the most that it takes."""
PREALLOCATION = 64 << 20
"""Bytes that QEMU may add to an image when it reserves all of it: it counts its tables on the safe side."""
SLOWEST = 10 << 20
"""Bytes of the source that a conversion of more than a day must do in a second of processor time."""


def node(path: Path, fmt: SourceFormat) -> str:
    """QEMU's name of a local file: neither that of the file nor its content changes the protocol or the format.

    Nor does the content of a QCOW2 add a backing file, whatever its header says by the time QEMU reads it. Source:
    qemu(1), section "Device URL Syntax" (json:), and BlockdevOptionsGenericCOWFormat.
    """
    options: dict[str, object] = {"driver": fmt, "file": {"driver": "file", "filename": str(path)}}
    return "json:" + json.dumps(options | ({"backing": None} if fmt == "qcow2" else {}))


@contextmanager
def linked(files: Sequence[SourceFile], folder: Path) -> Iterator[Path]:
    """The path of the first of `files`, all of one directory, for a tool that inherits their descriptors.

    It lies in a new directory below `folder`, in which each has its own name, as a link to what was opened: a VMDK
    names its extents and its parent, and whoever owns their directory may have given these names to other files.
    """
    with tempfile.TemporaryDirectory(prefix="source-", dir=folder, ignore_cleanup_errors=True) as place:
        for file in files:
            Path(place, file.path.name).symlink_to(file.opened)
        yield Path(place, files[0].path.name)


def virtual_size(image: Path, fmt: SourceFormat) -> int:
    """Bytes the guest sees of an image of ours."""
    argv = ["qemu-img", "info", "--output=json", node(image, fmt)]
    return int(json.loads(run.run(argv, sandbox=run.Sandbox(read=(image,))).stdout)["virtual-size"])


def reads_as(files: Sequence[SourceFile], fmt: SourceFormat, size: int, folder: Path) -> bool:
    """True when QEMU can read the disk that `files` make up (the named one first), and as one of `size` bytes.

    Links to the files are made in `folder` meanwhile. Raises MigrationFailed (`tool-stalled`).

    QEMU has disks on which an assertion fails, such as a VMDK with a parent and nothing but ZERO extents (QEMU 7.2,
    vmdk_get_info).
    """
    with linked(files, folder) as path:
        argv = ["qemu-img", "info", "--output=json", node(path, fmt)]
        try:
            done = run.run(argv, sandbox=run.Sandbox(handles=tuple(file.fd for file in files)), check=False)
        except MigrationFailed as error:
            if error.code == "tool-killed":
                return False
            raise
    return done.returncode == 0 and int(json.loads(done.stdout)["virtual-size"]) == size


def convert(
    source: SourceFile,
    source_format: SourceFormat,
    target: Path,
    target_format: Literal["qcow2", "raw"],
    *,
    virtual_size: int,
    compress: bool,
    reserve: bool,
    threads: int,
    bytes_per_second: int | None,
    on_fraction: Callable[[float], None],
) -> None:
    """Write `target` anew from the one file `source`; all of it is on disk at the end. `on_fraction` gets 0 to 1.

    Past the page cache where the file systems let it. Elsewhere its own flush (`-t writeback`) would wait for the disk
    at every table it updates; one fsync at the end does not, and has little left to do when the kernel is told at
    every step to begin writing.
    Raises MigrationFailed (`disk-full`, `tool-failed`, `tool-stalled`, `tool-killed`, `tool-cpu-limit`).
    """
    options = ["cluster_size=65536", "compat=1.1"] if target_format == "qcow2" else []
    options += ["compression_type=zstd"] if compress else []
    options += ["preallocation=falloc"] if reserve else []
    argv = ["qemu-img", "convert", "-p", "-m", str(min(threads * PER_THREAD, MOST_REQUESTS)), "-O", target_format]
    argv += ["-c"] if compress else ["-W"]  # compressed clusters can only be written in order
    argv += ["-r", str(bytes_per_second)] if bytes_per_second else []
    argv += ["-o", ",".join(options)] if options else []
    target.unlink(missing_ok=True)
    handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    argv += ["-t", "none"] if direct.possible(target) else []
    argv += ["-T", "none"] if direct.possible(source.opened) else []
    argv += [node(source.opened, source_format), str(target)]

    def on_output(text: str) -> None:
        for match in PERCENT.finditer(text):
            kernel.start_writeback(handle, 0, 0)
            on_fraction(float(match[1]) / 100)

    try:
        sandbox = run.Sandbox(
            handles=(source.fd,),
            write=(target,),
            file_size=full_size(virtual_size) + PREALLOCATION,
            cpu=max(run.DAY, source.size // SLOWEST),
        )
        run.run(argv, sandbox=sandbox, on_output=on_output)
        os.fsync(handle)
    except MigrationFailed as error:
        if "No space left on device" in error.message:
            raise disk_full(target.parent) from error
        raise
    finally:
        os.close(handle)


def walk(source: SourceFile, fmt: SourceFormat, take: Callable[[int, int, int | None], None]) -> None:
    """Give `take` each guest range (start, stop) of an image of one file that QEMU finds data in, in order, and where
    in the file that lies as it is. Raises MigrationFailed (`tool-failed`).
    """
    rest = ""

    def read(text: str) -> None:
        nonlocal rest
        *entries, rest = (rest + text).split("}")
        for entry in entries:
            extent = json.loads(entry[entry.index("{") :] + "}")
            if extent["data"] and not extent["zero"]:
                take(extent["start"], extent["start"] + extent["length"], extent.get("offset"))

    argv = ["qemu-img", "map", "--output=json", node(source.opened, fmt)]
    run.run(argv, sandbox=run.Sandbox(handles=(source.fd,)), on_output=read)


def check(image: Path) -> str | None:
    """What is wrong with a QCOW2's metadata, leaks included; None when it is clean."""
    found, said = _check(image, "qcow2", run.Sandbox(read=(image,)))
    if found is None:
        return said
    return _counted(found, ("corruptions", "leaks", "check-errors")) or said


def corruption(source: SourceFile, fmt: SourceFormat) -> str | None:
    """What keeps an image from being read as it was written; clusters that nothing uses do not.

    Raises MigrationFailed (`source-check-failed`) for one that QEMU cannot check, such as one that is in use.
    """
    found, said = _check(source.opened, fmt, run.Sandbox(handles=(source.fd,)))
    if found is None:
        raise MigrationFailed(
            "source-check-failed",
            f"QEMU cannot check {source.path}: {said}",
            hint="shut the guest down if it still runs, else copy or export the disk again",
            kind=Kind.OPERATOR,
        )
    return _counted(found, ("corruptions", "check-errors"))


def _check(image: Path, fmt: SourceFormat, sandbox: run.Sandbox) -> tuple[dict[str, Any] | None, str | None]:
    """What qemu-img counted, if it came to that, and what it complained of."""
    argv = ["qemu-img", "check", "--output=json", node(image, fmt)]
    done = run.run(argv, sandbox=sandbox, check=False)
    said = " / ".join(done.stderr.strip().splitlines()) or f"qemu-img check ended with {done.returncode}"
    try:
        return json.loads(done.stdout), said if done.returncode else None
    except ValueError:
        return None, said


def _counted(found: dict[str, Any], kinds: tuple[str, ...]) -> str | None:
    return ", ".join(f"{found[kind]} {kind}" for kind in kinds if found.get(kind)) or None
