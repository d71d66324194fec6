"""How far a copy got, durably, in one small file beside the image."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import zlib
from pathlib import Path

from pydantic import ValidationError

from hyper2kvmd.model import Frozen

SUFFIX = ".checkpoint"


class Checkpoint(Frozen):
    """All guest space before `position` is in the file, on disk."""

    key: str
    """Digest of all that decides the bytes of the image, and of which file it is."""
    position: int
    runs_from: int
    """Where the run begins that lies across `position`; otherwise `position`."""
    read: int
    """Guest bytes taken from the source so far."""
    state: str
    """The target's own, packed."""

    def target_state(self) -> bytes:
        """Raises ValueError for what was damaged."""
        try:
            return zlib.decompress(base64.b85decode(self.state))
        except zlib.error as error:
            raise ValueError(str(error)) from error


def pack_state(state: bytes) -> str:
    return base64.b85encode(zlib.compress(state, 1)).decode()


def make_key(identity: str, options: str, fd: int) -> str:
    """`identity` names the source, `options` the way of writing; `fd` is the image."""
    file = os.fstat(fd)
    return hashlib.sha256(f"1\n{identity}\n{options}\n{file.st_dev}:{file.st_ino}".encode()).hexdigest()


def path_for(image: Path) -> Path:
    return image.with_name(image.name + SUFFIX)


def load(image: Path, key: str) -> Checkpoint | None:
    """The checkpoint of this very copy; None where there is none that can be used."""
    try:
        found = Checkpoint.model_validate_json(path_for(image).read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.key == key else None


def save(image: Path, checkpoint: Checkpoint) -> None:
    """Replace the image's checkpoint, durably. The data it speaks of is on disk already."""
    path = path_for(image)
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(checkpoint.model_dump_json().encode())
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync_folder(path.parent)


def drop(image: Path) -> None:
    path = path_for(image)
    for leftover in (path, path.with_name(path.name + ".new")):
        with contextlib.suppress(FileNotFoundError):
            leftover.unlink()
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
