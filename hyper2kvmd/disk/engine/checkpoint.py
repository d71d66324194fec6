"""The progress of a copy, in small files beside the image.

Three records, each about as large as the unfinished tables:

- the *latest* covers data in the file, possibly only in memory, and is valid while the host runs. It needs no flush,
  so it is written often: a copy that was killed repeats little, even on a slow disk;
- the *durable* one covers data on disk and remains valid when the host itself goes down;
- the *complete* one states that the image was finished, with the size and times of its file.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import os
import zlib
from pathlib import Path

from pydantic import ValidationError

from hyper2kvmd.host.files import sync_folder, write_durably
from hyper2kvmd.model.frozen import Frozen

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LATEST, DURABLE, COMPLETE = ".latest", ".checkpoint", ".complete"


class Checkpoint(Frozen):
    """All guest space before `position` is in the file."""

    key: str
    """Digest of everything that determines the bytes of the image, and of its file."""
    position: int
    runs_from: int
    """Start of the run across `position`; otherwise `position`."""
    read: int
    """Guest bytes read from the source so far."""
    state: str
    """The image's own, packed."""
    boot: str = ""
    """The boot of the host for which it is valid; empty if durable."""

    def image_state(self) -> bytes:
        """Raises ValueError if it is damaged."""
        try:
            return zlib.decompress(base64.b64decode(self.state))
        except zlib.error as error:
            raise ValueError(str(error)) from error


class FinishedImage(Frozen):
    """The file of the finished image `key`; it differs if the image was written to since."""

    key: str
    size: int
    mtime_ns: int
    ctime_ns: int


def pack_state(state: bytes) -> str:
    return base64.b64encode(zlib.compress(state, 1)).decode()


def make_key(identity: str, options: str, fd: int) -> str:
    """`identity` is the source, `options` the format and its settings, `fd` the image."""
    file = os.fstat(fd)
    return hashlib.sha256(f"2\n{identity}\n{options}\n{file.st_dev}:{file.st_ino}".encode()).hexdigest()


def path_for(image: Path, kind: str) -> Path:
    return image.with_name(image.name + kind)


def load(image: Path, key: str) -> list[Checkpoint]:
    """The valid checkpoints of this very copy, the most advanced one first."""
    found = []
    for kind, boot in ((LATEST, boot_id()), (DURABLE, "")):
        with contextlib.suppress(OSError, ValidationError):
            checkpoint = Checkpoint.model_validate_json(path_for(image, kind).read_bytes())
            if checkpoint.key == key and checkpoint.boot == boot:
                found.append(checkpoint)
    return found


def note(image: Path, checkpoint: Checkpoint) -> None:
    """Replace the latest one. Its data is written, but need not be on disk."""
    path = path_for(image, LATEST)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(checkpoint.with_changes(boot=boot_id()).model_dump_json())
    fresh.replace(path)


def save(image: Path, checkpoint: Checkpoint) -> None:
    """Replace the durable one. Its data is on disk."""
    write_durably(path_for(image, DURABLE), checkpoint.model_dump_json())


def complete(image: Path, key: str, fd: int) -> None:
    """The image open as `fd` is finished and on disk; nothing may write to it any more."""
    write_durably(path_for(image, COMPLETE), _completed(key, fd).model_dump_json())
    drop(image, LATEST, DURABLE)


def is_complete(image: Path, key: str, fd: int) -> bool:
    """Whether the image open as `fd` was finished by this very copy and is unchanged since."""
    try:
        found = FinishedImage.model_validate_json(path_for(image, COMPLETE).read_bytes())
    except (OSError, ValidationError):
        return False
    return found == _completed(key, fd)


def drop(image: Path, *kinds: str) -> None:
    for kind in kinds:
        path = path_for(image, kind)
        for leftover in (path, path.with_name(path.name + ".new")):
            leftover.unlink(missing_ok=True)
    sync_folder(image.parent)


@functools.cache
def boot_id() -> str:
    return BOOT_ID.read_text().strip()


def _completed(key: str, fd: int) -> FinishedImage:
    file = os.fstat(fd)
    return FinishedImage(key=key, size=file.st_size, mtime_ns=file.st_mtime_ns, ctime_ns=file.st_ctime_ns)
