"""How far a copy got, in small files beside the image.

Three records, each about as large as the tables in the making:

- the *latest* holds for as long as the host runs: what it speaks of is in the file, perhaps in memory only. It costs
  no flush, so there are many, and a copy that was killed repeats little however slow the disk is;
- the *durable* one speaks of what is on disk, for the day when the host itself went down;
- the *complete* one says that the image was finished, and what the file then looked like from outside.
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
    """Digest of all that decides the bytes of the image, and of which file it is."""
    position: int
    runs_from: int
    """Where the run begins that lies across `position`; otherwise `position`."""
    read: int
    """Guest bytes taken from the source so far."""
    state: str
    """The target's own, packed."""
    boot: str = ""
    """Of the host, while which it holds; empty in a durable one."""

    def target_state(self) -> bytes:
        """Raises ValueError for what was damaged."""
        try:
            return zlib.decompress(base64.b64decode(self.state))
        except zlib.error as error:
            raise ValueError(str(error)) from error


class FinishedImage(Frozen):
    """The image that `key` names, as it was left; one that was written to since then differs."""

    key: str
    size: int
    mtime_ns: int
    ctime_ns: int


def pack_state(state: bytes) -> str:
    return base64.b64encode(zlib.compress(state, 1)).decode()


def make_key(identity: str, options: str, fd: int) -> str:
    """`identity` names the source, `options` the way of writing; `fd` is the image."""
    file = os.fstat(fd)
    return hashlib.sha256(f"2\n{identity}\n{options}\n{file.st_dev}:{file.st_ino}".encode()).hexdigest()


def path_for(image: Path, kind: str) -> Path:
    return image.with_name(image.name + kind)


def load(image: Path, key: str) -> list[Checkpoint]:
    """The checkpoints of this very copy that can be used, the one that got furthest first."""
    found = []
    for kind, boot in ((LATEST, boot_id()), (DURABLE, "")):
        with contextlib.suppress(OSError, ValidationError):
            checkpoint = Checkpoint.model_validate_json(path_for(image, kind).read_bytes())
            if checkpoint.key == key and checkpoint.boot == boot:
                found.append(checkpoint)
    return found


def note(image: Path, checkpoint: Checkpoint) -> None:
    """Replace the latest one. What it speaks of is written, and need not be on disk."""
    path = path_for(image, LATEST)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(checkpoint.with_changes(boot=boot_id()).model_dump_json())
    fresh.replace(path)


def save(image: Path, checkpoint: Checkpoint) -> None:
    """Replace the durable one. What it speaks of is on disk."""
    write_durably(path_for(image, DURABLE), checkpoint.model_dump_json())


def complete(image: Path, key: str, fd: int) -> None:
    """The image open as `fd` is finished and on disk, and nothing writes to it any more."""
    write_durably(path_for(image, COMPLETE), _completed(key, fd).model_dump_json())
    drop(image, LATEST, DURABLE)


def is_complete(image: Path, key: str, fd: int) -> bool:
    """Whether the image open as `fd` was finished by this very copy, and not touched since."""
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
