"""qemu-img, confined to the files of one migration, with explicit formats everywhere.

Its exit status is never taken for evidence: callers look at what it wrote.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from hyper2kvmd import run
from hyper2kvmd.errors import Kind, MigrationFailed

Format = Literal["vmdk", "qcow2", "raw", "vhdx", "vdi"]
PERCENT = re.compile(r"\((\d+\.\d+)/100%\)")


def node(path: Path, fmt: Format) -> str:
    """The --image-opts form of a local file: neither its name nor its content can change the protocol or the format."""
    return f"driver={fmt},file.driver=file,file.filename={str(path).replace(',', ',,')}"


def virtual_size(path: Path, fmt: Format, files: tuple[Path, ...]) -> int:
    """Bytes the guest sees. `files` are all the files the image consists of."""
    found = _json(["qemu-img", "info", "--output=json", "--image-opts", node(path, fmt)], files)
    return int(found["virtual-size"])


def reads_as(path: Path, fmt: Format, files: tuple[Path, ...], size: int) -> bool:
    """True when QEMU can read this disk as well, and as one of `size` bytes."""
    argv = ["qemu-img", "info", "--output=json", "--image-opts", node(path, fmt)]
    done = run.run(argv, sandbox=run.Sandbox(read=files), check=False)
    return done.returncode == 0 and int(json.loads(done.stdout)["virtual-size"]) == size


def convert(
    source: Path,
    source_format: Format,
    files: tuple[Path, ...],
    target: Path,
    target_format: Literal["qcow2", "raw"],
    *,
    compress: bool,
    preallocate: bool,
    bandwidth_limit: int = 0,
    on_percent: Callable[[float], None],
) -> None:
    """Write `target`; `on_percent` gets 0..100 as it goes. All of it is on disk at the end.

    qemu-img does not flush by itself: with `-t writeback` it would wait for the disk at every table it updates.
    `bandwidth_limit` in bytes a second; 0 is none.

    Raises MigrationFailed (`disk-full`, `tool-failed`, `tool-stalled`).
    """
    options = ["cluster_size=65536", "compat=1.1"] if target_format == "qcow2" else []
    if preallocate:
        options.append("preallocation=falloc")
    argv = ["qemu-img", "convert", "-p", "-m", "16", "-W", "-O", target_format]
    argv += ["-r", str(bandwidth_limit)] if bandwidth_limit else []
    argv += ["-o", ",".join(options)] if options else []
    argv += ["-c"] if compress else []
    argv += ["--image-opts", node(source, source_format), str(target)]
    _watched(argv, run.Sandbox(read=files, write=(target.parent,)), on_percent, target)
    handle = os.open(target, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def compare(
    source: Path,
    source_format: Format,
    files: tuple[Path, ...],
    image: Path,
    fmt: Format,
    on_percent: Callable[[float], None],
) -> bool:
    """True when a guest would read the same bytes from the source and from the image."""
    argv = ["qemu-img", "compare", "-p", "--image-opts", node(source, source_format), node(image, fmt)]
    found = run.run(argv, sandbox=run.Sandbox(read=(*files, image)), on_output=_percents(on_percent), check=False)
    if found.returncode not in (0, 1):
        raise MigrationFailed(
            "tool-failed",
            f"qemu-img cannot compare {source} with its image: {' / '.join(found.stderr.strip().splitlines())}",
            hint="check the storage under both, then retry",
            kind=Kind.OPERATOR,
        )
    return found.returncode == 0


def check(image: Path) -> str | None:
    """What is wrong with a QCOW2's metadata, leaks included; None when it is clean."""
    argv = ["qemu-img", "check", "--output=json", "--image-opts", node(image, "qcow2")]
    done = run.run(argv, sandbox=run.Sandbox(read=(image,)), check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return done.stderr.strip() or "qemu-img check gave no result"
    counts = {key: found.get(key, 0) for key in ("corruptions", "leaks", "check-errors")}
    bad = ", ".join(f"{count} {key}" for key, count in counts.items() if count)
    return bad or (None if done.returncode == 0 else done.stderr.strip() or "qemu-img check failed")


def _json(argv: list[str], files: tuple[Path, ...]) -> Any:
    return json.loads(run.run(argv, sandbox=run.Sandbox(read=files)).stdout)


def _percents(on_percent: Callable[[float], None]) -> Callable[[str], None]:
    def read(text: str) -> None:
        for match in PERCENT.finditer(text):
            on_percent(float(match[1]))

    return read


def _watched(argv: list[str], sandbox: run.Sandbox, on_percent: Callable[[float], None], target: Path) -> None:
    try:
        run.run(argv, sandbox=sandbox, on_output=_percents(on_percent))
    except MigrationFailed as error:
        if "No space left on device" in error.message:
            raise disk_full(target.parent) from error
        raise


def disk_full(folder: Path) -> MigrationFailed:
    return MigrationFailed(
        "disk-full",
        f"the file system that holds {folder} is full",
        hint="free space there or name another conversion directory, then retry",
        kind=Kind.OPERATOR,
    )
