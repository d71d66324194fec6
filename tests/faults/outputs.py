"""Delivered images compared with the source, or with those of a clean run; and sources compared with before."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.faults.house import House

LINUX_PARTITION = "83"
Facts = tuple[int, int, int, str]
"""Of a file in a guest: mode, uid, gid and the digest of its content, or the target of a link."""


def guest_digest(image: Path) -> str:
    """SHA-256 of the bytes that a guest sees on this disk."""
    with _Raw(image) as raw:
        return _digest(raw)


def guest_files(image: Path) -> dict[str, Facts]:
    """All files of the guest's only Linux partition, as the kernel shows them; times are left out."""
    with _Raw(image) as raw, tempfile.TemporaryDirectory() as place:
        start, size = _linux_partition(raw)
        _run("mount", "-o", f"loop,ro,offset={start},sizelimit={size}", raw, place)
        try:
            return {str(path.relative_to(place)): _facts(path) for path in _all_below(Path(place))}
        finally:
            _run("umount", place)


def wrong_outputs(folder: Path, vm_name: str, *, digest: str = "", files: dict[str, Facts] | None = None) -> list[str]:
    """What is wrong with the output of a migration that succeeded: its files, their state, and what the guest sees."""
    return list(_wrong_outputs(folder, vm_name, digest, files))


def _wrong_outputs(folder: Path, vm_name: str, digest: str, files: dict[str, Facts] | None) -> Iterator[str]:
    wanted = {f"{vm_name}{end}" for end in (".qcow2", ".xml", ".report.json", ".report.md")}
    found = {path.name for path in folder.iterdir() if path.name.startswith((f"{vm_name}.", f".{vm_name}"))}
    if found != wanted:
        yield f"{vm_name}: {sorted(found)} instead of {sorted(wanted)}"
        return
    image = folder / f"{vm_name}.qcow2"
    if image.stat().st_nlink != 1:
        yield f"{image} has {image.stat().st_nlink} names"
    judged = subprocess.run(["qemu-img", "check", "-f", "qcow2", image], capture_output=True, text=True)
    if judged.returncode:
        yield f"{image}: qemu-img check: {judged.stdout}{judged.stderr}"
    elif digest and guest_digest(image) != digest:
        yield f"{image} has other content than the source"
    elif files is not None:
        own = guest_files(image)
        yield from (
            f"{image}: {name} is {own.get(name)}, but {files.get(name)} after a clean run"
            for name in sorted({*own, *files})
            if own.get(name) != files.get(name)
        )


def sources(house: House) -> dict[str, tuple[int, int, int, int, str]]:
    """What must stay the same in each file of the sources."""
    found = {}
    for path in sorted(house.sources.rglob("*")):
        if path.is_file():
            facts = path.stat()
            found[str(path)] = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_mode, _digest(path))
    return found


class _Raw:
    """An image as a raw file, for as long as the block runs."""

    def __init__(self, image: Path) -> None:
        self._image = image

    def __enter__(self) -> Path:
        handle, name = tempfile.mkstemp(suffix=".raw", dir="/var/tmp")
        os.close(handle)
        self._path = Path(name)
        _run("qemu-img", "convert", "-f", self._image.suffix[1:], "-O", "raw", self._image, self._path)
        return self._path

    def __exit__(self, *_: object) -> None:
        self._path.unlink()


def _linux_partition(raw: Path) -> tuple[int, int]:
    """Offset and size in bytes."""
    for line in _run("sfdisk", "--dump", raw).splitlines():
        facts = dict(part.strip().split("=") for part in line.partition(" : ")[2].split(",") if "=" in part)
        if facts.get("type", "").strip() == LINUX_PARTITION:
            return int(facts["start"]) * 512, int(facts["size"]) * 512
    raise AssertionError(f"no Linux partition in {raw}")


def _all_below(place: Path) -> Iterator[Path]:
    return (path for path in place.rglob("*") if path.name != "lost+found")


def _facts(path: Path) -> Facts:
    facts = path.lstat()
    content = str(path.readlink()) if path.is_symlink() else _digest(path) if path.is_file() else ""
    return facts.st_mode, facts.st_uid, facts.st_gid, content


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(*argv: str | Path) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout
