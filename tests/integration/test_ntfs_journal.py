"""A job is killed at every instant of a journal's life: after the retry the volume is that of a run without kills."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest

from hyper2kvmd.guest.files.ntfs_root import NtfsRoot, identity_of, ntfs_session, replay_changes, write_changes
from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.mounts import access
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.model.disks import DiskImage, Image, Volume
from hyper2kvmd.volumes.layout import read_layout
from hyper2kvmd.volumes.ntfs.journal import ChangeJournal
from tests.support.disks import FileReader, empty_disk, sh
from tests.support.host import MIB, as_qcow2, as_raw
from tests.support.ntfs import make_ntfs, seen_by_dissect

START, SIZE = MIB, 8 * MIB
TRACED = ("write_changes", "write", "apply", "drop", "remove", "pieces", "flush")
"""Functions of a journal's life: from before its file is made until after it is removed."""


def raw_image(folder: Path) -> Image:
    disk = empty_disk(folder / "disk.raw", 10)
    sh("sfdisk", "-q", disk, stdin=f"label: dos\nstart={START // 512}, size={SIZE // 512}, type=7\n")
    volume = make_ntfs(folder / "volume", SIZE)
    with disk.open("r+b") as file:
        file.seek(START)
        file.write(volume.read_bytes())
    volume.unlink()
    layout = read_layout([FileReader(disk)])
    size = disk.stat().st_size
    return Image(disks=(DiskImage(path=disk, virtual_size=size, file_bytes=size),), format="raw", layout=layout)


@contextmanager
def opened(image: Image, folder: Path) -> Iterator[tuple[Access, Volume]]:
    """Without the root helper."""
    with access.open_image(image, Helper(("/bin/false",)), folder) as found:
        yield found, next(volume for volume in image.layout.volumes if volume.content == "ntfs")


def changes_of(image: Image, folder: Path) -> ChangeJournal:
    with opened(image, folder) as (found, place), ntfs_session(found, place) as volume:
        tree = GuestTree({"/": NtfsRoot(volume)})
        for number in range(6):
            content = os.urandom(50_000 * number + 100)
            tree.write_bytes(f"/Windows/System32/drivers/d{number}.sys", content, fix="test", summary="made")
        tree.commit()
        return volume.journal()


def killed(image: Image, folder: Path, changes: ChangeJournal, after: int) -> bool:
    """Write the changes in a process that gets SIGKILL at that line of the traced functions; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        left = after

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code.co_name not in TRACED or "hyper2kvmd" not in frame.f_code.co_filename:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            with opened(image, folder) as (found, place):
                sys.settrace(trace)
                write_changes(found, place, changes, folder)
                sys.settrace(None)
        finally:
            os._exit(0)
    was_killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    until_closed(image.disks[0].path)
    return was_killed


def until_closed(path: Path) -> None:
    """Until the exporter of a killed process has ended too: it gets its own SIGKILL a moment later."""
    while any(str(path) in " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])):
        time.sleep(0.01)


def content(image: Image) -> bytes:
    if image.format == "raw":
        return image.disks[0].path.read_bytes()
    return as_raw(image).read_bytes()


@pytest.mark.parametrize(("form", "step"), [("raw", 1), ("qcow2", 13)])
def test_a_kill_at_any_instant_leaves_the_old_or_the_new_volume(form: str, step: int, tmp_path: Path) -> None:
    image = raw_image(tmp_path)
    if form == "qcow2":
        image = as_qcow2(image)
    path, work = image.disks[0].path, tmp_path / "work"
    work.mkdir()
    changes = changes_of(image, work)
    kept = shutil.copy(path, tmp_path / "kept")
    old = content(image)
    with opened(image, work) as (found, place):
        write_changes(found, place, changes, work)
    new = content(image)
    assert new != old and not [*work.glob("*.journal")]
    assert len(seen_by_dissect_of(new, tmp_path)) == 9

    after, replayed, alive = 0, 0, False
    while not alive:
        after += step
        shutil.copy(kept, path)
        alive = not killed(image, work, changes, after)
        with opened(image, work) as (found, place):
            completed = replay_changes(found, place, work)
        replayed += completed
        if not completed and content(image) == old:
            with opened(image, work) as (found, place):
                write_changes(found, place, changes, work)
        assert content(image) == new, f"killed at line {after}"
        assert not [*work.glob("ntfs-*")]
    assert replayed * step > 30


def seen_by_dissect_of(disk: bytes, folder: Path) -> dict[str, str]:
    volume = folder / "seen"
    volume.write_bytes(disk[START : START + SIZE])
    return seen_by_dissect(volume)


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    image = raw_image(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    with opened(image, work) as (found, place):
        for expected in (True, False):
            with ntfs_session(found, place) as volume:
                if "made" not in volume.names(""):
                    volume.write("made", b"data")
                changes = volume.journal()
            assert bool(changes.runs) is expected
            write_changes(found, place, changes, work)
        assert changes.identity == identity_of(place) and not [*work.iterdir()]
