"""One command, measured: wall time, time until its result is on disk, peak memory, blocks it took."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


SETTLED_READINGS = 5


@dataclass(frozen=True)
class Command:
    """One side of a comparison. `target` is what it writes, if anything; it is removed before and after each run.

    With `waits` it loads its modules, writes one line, and begins when it reads one: a worker of the service has
    loaded them long before it converts. `warm_up` brings other programs' own pages back into the cold cache.
    """

    label: str
    argv: tuple[str, ...]
    target: Path | None = None
    waits: bool = False
    warm_up: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """`seconds` until the process ended, `durable` until its target was on disk as well; memory and blocks in bytes.

    `blocks`: of the target, on a file system of its own what that has less of free space, shared blocks being free.
    """

    seconds: float
    durable: float
    peak_memory: int
    blocks: int


def sh(*argv: str | Path) -> str:
    """Run a tool and return its stdout; SystemExit with its own message when it fails."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(map(str, argv))}\n{done.stdout}{done.stderr}")
    return done.stdout


def in_a_child(work: Callable[[], None]) -> None:
    """Do it in a process of its own: a child's peak memory starts at its parent's, so this one stays small."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit("bench: a source could not be made")


def measure(command: Command, *, own_file_system: bool) -> Measured:
    """Run `command` with a cold page cache and nothing else waiting to be written."""
    target = command.target
    discard(target)
    free = free_bytes(target.parent) if target and own_file_system else 0
    if not command.waits:
        make_cold(command.warm_up)
    process = subprocess.Popen(command.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    if command.waits:
        process.stdout.readline()
        make_cold(command.warm_up)
    started = time.monotonic()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(b"go\nrecorded\n")
        process.stdin.close()
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command.argv)}\nended with {process.returncode}")
    blocks = 0
    if target is not None:
        flush(target)
    durable = time.monotonic() - started
    if target is not None:
        blocks = free - free_bytes(target.parent) if own_file_system else target.stat().st_blocks * 512
    discard(target)
    return Measured(seconds, durable, usage.ru_maxrss * 1024, blocks)


def make_cold(warm_up: tuple[str, ...]) -> None:
    """Nothing waits to be written and nothing is cached but what `warm_up` runs."""
    os.sync()
    DROP_CACHES.write_text("3\n")
    if warm_up:
        sh(*warm_up)


def flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def free_bytes(place: Path) -> int:
    """Free bytes, once they no longer change: XFS frees the blocks of a removed file later, even after a sync."""
    before, same = -1, 0
    while same < SETTLED_READINGS:
        os.sync()
        status = os.statvfs(place)
        free = status.f_bfree * status.f_frsize
        same = same + 1 if free == before else 0
        before = free
        time.sleep(0.2)
    return before


def discard(target: Path | None) -> None:
    if target is not None and target.parent.is_dir():
        for file in target.parent.glob(f"{target.name}*"):
            file.unlink()


@contextmanager
def reflink_file_system(folder: Path, size: int) -> Iterator[Path]:
    """An XFS with reflink on a loop device, around the page cache of the file below; gone afterwards."""
    backing, place = folder / "xfs.img", folder / "xfs"
    with backing.open("wb") as file:
        file.truncate(size)
    place.mkdir(exist_ok=True)
    device = ""
    try:
        sh("mkfs.xfs", "-q", "-f", "-m", "reflink=1", backing)
        device = sh("losetup", "--find", "--show", "--direct-io=on", backing).strip()
        sh("mount", device, place)
        try:
            yield place
        finally:
            sh("umount", place)
    finally:
        if device:
            sh("losetup", "--detach", device)
        backing.unlink()
        shutil.rmtree(place)
