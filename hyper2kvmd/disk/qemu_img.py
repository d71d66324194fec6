"""qemu-img, confined to the files of one migration, with explicit formats everywhere.

Its exit status is never taken for evidence: callers look at what it wrote.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from hyper2kvmd import run
from hyper2kvmd.errors import Kind, MigrationFailed

Format = Literal["vmdk", "qcow2", "raw"]


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


def disk_full(folder: Path) -> MigrationFailed:
    return MigrationFailed(
        "disk-full",
        f"the file system that holds {folder} is full",
        hint="free space there or name another conversion directory, then retry",
        kind=Kind.OPERATOR,
    )
