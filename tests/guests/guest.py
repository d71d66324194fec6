"""A guest that can be built, and the cache of those that were.

Each disk is built once and kept in `.cache/guests/` (or in the folder that H2K_GUEST_CACHE names), under a name that
changes with its recipe's text. Building takes root: this module asks sudo when it is not root, and builds in a mount
namespace of its own, which takes every mount with it when it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tests.guests.build import Disk

REPOSITORY = Path(__file__).resolve().parents[2]
BLOCKS = tuple(Path(__file__).with_name(name) for name in ("build.py", "installer.py"))
HOSTNAME = "web01"
Firmware = Literal["bios", "uefi"]
Subformat = Literal["monolithicSparse", "streamOptimized", "monolithicFlat", "twoGbMaxExtentSparse"]


@dataclass(frozen=True)
class Guest:
    name: str
    recipe: Path
    """The file whose text decides whether the disk must be built anew."""
    build: Callable[[Disk], None]
    """Fills an empty disk, or two; runs as root, in a mount namespace of its own."""
    packages: tuple[str, ...]
    suite: str = "bookworm"
    mended: frozenset[str] = frozenset()
    """Every file that a repair must change, kernel versions as `*`."""
    says: str = "login:"
    """What must be among the last lines of its console."""

    @property
    def folder(self) -> Path:
        texts = [path.read_bytes() for path in (*BLOCKS, self.recipe)]
        key = hashlib.sha256(b"".join((self.name.encode(), *texts)))
        return cache() / f"{self.name}-{key.hexdigest()[:16]}"


def disk(guest: Guest) -> Path:
    """The raw disk that it boots from, read-only: work on a copy or an overlay."""
    return disks(guest)[0]


def disks(guest: Guest) -> tuple[Path, ...]:
    """All its raw disks, in the order of the machine."""
    with locked(cache() / "lock"):
        if not guest.folder.exists():
            _build_as_root(guest)
    return tuple(sorted(guest.folder.glob("disk*.raw")))


def vmdk(guest: Guest, subformat: Subformat = "streamOptimized") -> Path:
    """The disk as a VMDK; the folder that it lies in holds its extents and nothing else."""
    raw = disk(guest)
    folder = guest.folder.with_name(f"{guest.folder.name}-{subformat}")
    with locked(cache() / "lock"):
        if not folder.exists():
            with finished_at_once(folder) as unfinished:
                target = unfinished / f"{HOSTNAME}.vmdk"
                argv = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}"]
                subprocess.run([*argv, raw, target], check=True, stdin=subprocess.DEVNULL)
                for file in unfinished.iterdir():
                    file.chmod(0o444)
    return folder / f"{HOSTNAME}.vmdk"


def cache() -> Path:
    folder = Path(os.environ.get("H2K_GUEST_CACHE") or REPOSITORY / ".cache" / "guests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def finished_at_once(folder: Path) -> Iterator[Path]:
    """A folder that gets its name only when the block has filled it."""
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder.parent))
    unfinished.chmod(0o755)
    owner = folder.parent.stat()
    os.chown(unfinished, owner.st_uid, owner.st_gid)  # root builds for whoever owns the cache
    try:
        yield unfinished
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _build_as_root(guest: Guest) -> None:
    command = ["unshare", "--mount", "--", sys.executable, "-B", "-m", "tests.guests", guest.name, "--build"]
    if os.geteuid() != 0:
        command = ["sudo", "-n", f"H2K_GUEST_CACHE={cache()}", *command]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdin=subprocess.DEVNULL)
