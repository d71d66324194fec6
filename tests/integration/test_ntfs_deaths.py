"""A worker dies while it repairs a Windows: its volumes are those of a clean run in the end, and so is the report."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.disk.qemu import overlays
from hyper2kvmd.guest.files import fat_root, ntfs_root
from hyper2kvmd.guest.windows import family, writing
from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.stages import repair
from hyper2kvmd.volumes import window
from hyper2kvmd.volumes.ntfs import changes
from tests.guests.windows.disk import WindowsDisk
from tests.guests.windows.machine import Windows
from tests.support import ntfs_judges
from tests.support.attempts import Attempts
from tests.support.disks import sh
from tests.support.killed_lines import Line, killed_before, line_of, lines_of
from tests.support.windows_beds import Beds

MODULES = (changes, ntfs_root, writing, family, fat_root, window, overlays, repair)
WATCHED = [Path(str(module.__file__)) for module in MODULES]
WRITING = line_of(changes.VolumeChanges.write)
"""The loop over the runs of changed blocks."""
WINDOWS = Windows(firmware="uefi")
"""Two volumes change: that of Windows, and the EFI system partition."""


@dataclass(frozen=True)
class Found:
    """What the job of a Windows made, by readers of other authors."""

    files: ntfs_judges.Files
    esp: str
    changes: Any


def _attempts(folder: Path, beds: Beds, form: str) -> tuple[Attempts, WindowsDisk]:
    folder.mkdir()
    job = Attempts(folder)
    disk = beds.disk(job.source, WINDOWS)
    job.order = job.order.with_changes(migration=job.order.migration.with_changes(out_format=form))
    job.result = job.out / f"web01.{form}"
    return job, disk


def _found(job: Attempts, disk: WindowsDisk, form: str) -> Found:
    raw = job.out / "look.raw"
    sh("qemu-img", "convert", "-f", form, "-O", "raw", job.result, raw)
    place = (raw, disk.system.offset, disk.system.length)
    ntfs_judges.check(*place)
    esp = sh("mdir", "-/", "-b", "-i", f"{raw}@@{disk.loader.offset}", "::/")
    report = json.loads((job.out / "web01.report.json").read_text())
    return Found(ntfs_judges.files_of(*place), esp, report["guest"]["changes"])


@pytest.fixture(scope="module")
def clean(windows_beds: Beds, tmp_path_factory: pytest.TempPathFactory) -> Found:
    job, disk = _attempts(tmp_path_factory.mktemp("clean") / "job", windows_beds, "qcow2")
    assert job.run()[1] == ""
    found = _found(job, disk, "qcow2")
    assert {"hive", "file"} <= set(map(_kind, found.changes)), found.changes
    assert "bootx64.efi" in found.esp.lower()
    return found


def _kind(change: dict[str, Any]) -> str:
    return "hive" if "config" in change["path"] else "file"


def _die_and_go_on(folder: Path, beds: Beds, form: str, line: Line, clean: Found, *, time: int = 1) -> bool:
    """Whether the first attempt came to that line."""
    job, disk = _attempts(folder, beds, form)
    if not killed_before(line, job.run, time=time):
        return False
    started, code = job.run()
    assert (Stage.REPAIR in started, code) == (True, ""), line
    assert _found(job, disk, form) == clean, line
    assert list(job.conversions.iterdir()) == []
    return True


@pytest.mark.parametrize(
    ("form", "line", "time"),
    [("qcow2", WRITING, 3), ("qcow2", line_of(overlays.Overlays.commit), 1), ("raw", WRITING, 3)],
    ids=["overlay", "complete overlay", "raw image"],
)
def test_a_kill_while_the_changes_are_written(
    form: str, line: Line, time: int, windows_beds: Beds, clean: Found, tmp_path: Path
) -> None:
    """Some runs of blocks are written; of a complete overlay, all of them."""
    assert _die_and_go_on(tmp_path / "job", windows_beds, form, line, clean, time=time)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_a_kill_at_any_line_leaves_no_trace_in_windows(
    form: str, windows_beds: Beds, clean: Found, tmp_path: Path
) -> None:
    lines = lines_of(_attempts(tmp_path / "lines", windows_beds, form)[0].run, WATCHED)
    for number, line in enumerate(lines):
        _die_and_go_on(tmp_path / str(number), windows_beds, form, line, clean)
        shutil.rmtree(tmp_path / str(number))
