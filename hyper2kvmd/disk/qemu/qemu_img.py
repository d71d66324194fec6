"""qemu-img, confined to the files of one migration, with explicit formats everywhere.

Its exit status is not evidence of success: callers check its output.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from hyper2kvmd.disk import direct, kernel
from hyper2kvmd.disk.files import SourceFile
from hyper2kvmd.disk.images.qcow2 import full_size
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host import run
from hyper2kvmd.host.space import FULL, disk_full
from hyper2kvmd.model.disks import SourceFormat

PERCENT = re.compile(r"\((\d+\.\d+)/100%\)")
PER_THREAD, MOST_REQUESTS = 8, 16
"""Requests that qemu-img has in flight for each thread that it may use, and the most that it accepts."""
PREALLOCATION = 64 << 20
"""Bytes that QEMU may add to an image that it fully reserves: it overestimates the tables."""
EMPTY_BYTES = 4 << 20
"""Of an empty QCOW2: the tables of the largest disk (64 TiB) need 1.2 MiB."""
SECTOR = 512
SLOWEST = 10 << 20
"""Bytes of the source that a conversion of more than a day must process per second of processor time."""


def node(path: Path, fmt: str, settings: Mapping[str, object] | None = None, opened: SourceFile | None = None) -> str:
    """QEMU's name of a local file: neither its path nor its content can change the protocol or format.

    `opened` is the source behind `path`, if it is one. The header of a QCOW2 cannot add a backing file either, even if
    it changed before QEMU reads it. Source: qemu(1), section "Device URL Syntax" (json:), and
    BlockdevOptionsGenericCOWFormat.
    """
    options: dict[str, object] = {"driver": fmt, "file": stored_bytes(path, opened)}
    return "json:" + json.dumps(options | dict(settings or {}) | ({"backing": None} if fmt == "qcow2" else {}))


def stored_bytes(path: Path, opened: SourceFile | None, **options: object) -> dict[str, object]:
    """QEMU's node for the bytes of a file, below that of its format. For a member of an archive, only these bytes.

    QEMU wants whole sectors. The bytes up to the end of the last one are the padding of the archive, or what follows.
    """
    file: dict[str, object] = {"driver": "file", "filename": str(path), **options}
    if opened is None or not opened.is_member:
        return file
    size = -(-opened.size // SECTOR) * SECTOR
    limit = {"size": size} if opened.first + size <= opened.identity.size else {}
    return {"driver": "raw", "offset": opened.first, **limit, "file": file}


@contextmanager
def linked(files: Sequence[SourceFile], folder: Path) -> Iterator[Path]:
    """The path of the first of `files`, all of one directory, for a tool that inherits their descriptors.

    A new directory in `folder` has a link for each, with the same name, to the open file. A VMDK names its extents and
    its parent, and the owner of their directory may have given these names to other files.
    """
    with tempfile.TemporaryDirectory(prefix="source-", dir=folder, ignore_cleanup_errors=True) as private:
        for file in files:
            Path(private, file.path.name).symlink_to(file.opened)
        yield Path(private, files[0].path.name)


def create(image: Path, size: int) -> None:
    """Make an empty QCOW2 of `size` bytes."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", str(image), str(size)]
    run.run(argv, sandbox=run.Sandbox(write=(image.parent,), file_size=EMPTY_BYTES))


def is_empty(overlay: Path) -> bool:
    """Whether a QCOW2 of ours stores no data."""
    argv = ["qemu-img", "map", "--output=json", node(overlay, "qcow2")]
    stored = json.loads(run.run(argv, sandbox=run.Sandbox(read=(overlay,))).stdout)
    return not any(extent.get("present", True) for extent in stored)  # before QEMU 6.1: not known


def commit(overlay: Path, image: Path) -> None:
    """Write the data of an overlay into the QCOW2 below it. After a crash, the same again gives the same image.

    Raises MigrationFailed as `run` does.
    """
    below = {"driver": "qcow2", "file": stored_bytes(image, None), "backing": None}
    top = {"driver": "qcow2", "file": stored_bytes(overlay, None), "backing": below}
    limit = image.stat().st_size + overlay.stat().st_size + PREALLOCATION
    argv = ["qemu-img", "commit", "-q", "-d", f"json:{json.dumps(top)}"]
    run.run(argv, sandbox=run.Sandbox(write=(overlay, image), file_size=limit))


def release_leaks(image: Path) -> None:
    """Free clusters of a QCOW2 that nothing uses: harmless, and what a power cut leaves.

    Raises MigrationFailed as `run` does.
    """
    argv = ["qemu-img", "check", "-q", "-r", "leaks", "-f", "qcow2", str(image)]
    limit = image.stat().st_size + PREALLOCATION
    run.run(argv, sandbox=run.Sandbox(write=(image,), file_size=limit), check=False)


def resize(image: Path, fmt: Literal["qcow2", "raw"], size: int) -> None:
    """Grow the disk in an image of ours to `size` bytes, and flush it.

    Raises MigrationFailed (`disk-full`, and as `run` does).
    """
    limit = full_size(size) + PREALLOCATION if fmt == "qcow2" else size
    try:
        argv = ["qemu-img", "resize", "-q", "-f", fmt, str(image), str(size)]
        run.run(argv, sandbox=run.Sandbox(write=(image,), file_size=limit))
    except MigrationFailed as error:
        if _found_no_space(error):
            raise disk_full(image.parent) from error
        raise
    with image.open("rb") as file:
        os.fsync(file.fileno())


def _found_no_space(error: MigrationFailed) -> bool:
    return any(os.strerror(number) in error.message for number in FULL)


def virtual_size(image: Path, fmt: SourceFormat) -> int:
    """Bytes of the guest's disk in an image of ours."""
    argv = ["qemu-img", "info", "--output=json", node(image, fmt)]
    return int(json.loads(run.run(argv, sandbox=run.Sandbox(read=(image,))).stdout)["virtual-size"])


def reads_as(files: Sequence[SourceFile], driver: str, settings: Mapping[str, object], size: int, folder: Path) -> bool:
    """Whether QEMU can read the disk in `files` (the named one first) as one of `size` bytes.

    Temporary links to the files are made in `folder`. Raises MigrationFailed (`tool-stalled`).

    Some disks make an assertion in QEMU fail, such as a VMDK with a parent and only ZERO extents (QEMU 7.2,
    vmdk_get_info).
    """
    with linked(files, folder) as path:
        argv = ["qemu-img", "info", "--output=json", node(path, driver, settings, files[0])]
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
    image: Path,
    target_format: Literal["qcow2", "raw"],
    *,
    virtual_size: int,
    compress: bool,
    reserve: bool,
    threads: int,
    bytes_per_second: int | None,
    on_fraction: Callable[[float], None],
) -> None:
    """Write `image` anew from the single file `source` and flush it. `on_fraction` gets 0 to 1.

    It bypasses the page cache if the file systems allow it. Otherwise qemu-img's own flush (`-t writeback`) would wait
    for the disk at every updated table. One fsync at the end does not, and is short because the kernel is asked at
    every step to start writing.
    Raises MigrationFailed (`disk-full`, `tool-failed`, `tool-stalled`, `tool-killed`, `tool-cpu-limit`).
    """
    options = ["cluster_size=65536", "compat=1.1"] if target_format == "qcow2" else []
    options += ["compression_type=zstd"] if compress else []
    options += ["preallocation=falloc"] if reserve else []
    argv = ["qemu-img", "convert", "-p", "-m", str(min(threads * PER_THREAD, MOST_REQUESTS)), "-O", target_format]
    argv += ["-c"] if compress else ["-W"]  # compressed clusters can only be written in order
    argv += ["-r", str(bytes_per_second)] if bytes_per_second else []
    argv += ["-o", ",".join(options)] if options else []
    image.unlink(missing_ok=True)
    handle = os.open(image, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    argv += ["-t", "none"] if direct.possible(image) else []
    argv += ["-T", "none"] if direct.possible(source.opened) else []
    argv += [node(source.opened, source_format, opened=source), str(image)]

    def on_output(text: str) -> None:
        for match in PERCENT.finditer(text):
            kernel.start_writeback(handle, 0, 0)
            on_fraction(float(match[1]) / 100)

    try:
        sandbox = run.Sandbox(
            handles=(source.fd,),
            write=(image,),
            file_size=full_size(virtual_size) + PREALLOCATION,
            cpu=max(run.DAY, source.size // SLOWEST),
        )
        run.run(argv, sandbox=sandbox, on_output=on_output)
        os.fsync(handle)
    except MigrationFailed as error:
        if _found_no_space(error):
            raise disk_full(image.parent) from error
        raise
    finally:
        os.close(handle)


def walk(source: SourceFile, fmt: SourceFormat, take: Callable[[int, int, int | None], None]) -> None:
    """Call `take` for each guest range with data in a single-file image, in order.

    It gets start, stop and the file offset if the data is stored unchanged. Raises MigrationFailed (`tool-failed`).
    """
    rest = ""

    def read(text: str) -> None:
        nonlocal rest
        *entries, rest = (rest + text).split("}")
        for entry in entries:
            extent = json.loads(entry[entry.index("{") :] + "}")
            if extent["data"] and not extent["zero"]:
                take(extent["start"], extent["start"] + extent["length"], extent.get("offset"))

    argv = ["qemu-img", "map", "--output=json", node(source.opened, fmt, opened=source)]
    run.run(argv, sandbox=run.Sandbox(handles=(source.fd,)), on_output=read)


def check(image: Path) -> str | None:
    """The errors in a QCOW2's metadata, after leaks alone were repaired; None if there are none."""
    found, said = _check(node(image, "qcow2"), run.Sandbox(read=(image,)))
    if found is not None and _counted(found, ("leaks",)) and not _counted(found, ("corruptions", "check-errors")):
        release_leaks(image)
        found, said = _check(node(image, "qcow2"), run.Sandbox(read=(image,)))
    if found is None:
        return said
    return _counted(found, ("corruptions", "leaks", "check-errors")) or said


def corruption(source: SourceFile, fmt: SourceFormat) -> str | None:
    """The errors that make an image's data unreliable; leaked clusters are not among them.

    Raises MigrationFailed (`source-check-failed`) if QEMU cannot check it, for example while it is in use.
    """
    found, said = _check(node(source.opened, fmt, opened=source), run.Sandbox(handles=(source.fd,)))
    if found is None:
        raise MigrationFailed(
            "source-check-failed",
            f"QEMU cannot check {source.path}: {said}",
            hint="Shut the guest down if it still runs. Otherwise, copy or export the disk again",
        )
    return _counted(found, ("corruptions", "check-errors"))


def _check(image: str, sandbox: run.Sandbox) -> tuple[dict[str, Any] | None, str | None]:
    """The counts of qemu-img for a `node`, if it reported any, and its error message."""
    argv = ["qemu-img", "check", "--output=json", image]
    done = run.run(argv, sandbox=sandbox, check=False)
    said = " / ".join(done.stderr.strip().splitlines()) or f"qemu-img check ended with {done.returncode}"
    try:
        return json.loads(done.stdout), said if done.returncode else None
    except ValueError:
        return None, said


def _counted(found: dict[str, Any], kinds: tuple[str, ...]) -> str | None:
    return ", ".join(f"{found[kind]} {kind}" for kind in kinds if found.get(kind)) or None
