"""A worker dies, or runs out of space, while it repairs a guest: the delivered image is that of a clean run."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from hyper2kvmd.disk.qemu import overlays, qemu_img
from hyper2kvmd.guest.files import root, tree
from hyper2kvmd.guest.mounts.access import default_helper
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.model.results import Finished
from hyper2kvmd.stages import repair
from tests.support.attempts import Attempts
from tests.support.disks import sh
from tests.support.file_systems import file_system
from tests.support.host import MIB
from tests.support.killed_lines import Line, killed_before, line_of, lines_of
from tests.support.small_guest import content_of, copy_of, small_guest

WATCHED = [Path(str(module.__file__)) for module in (overlays, repair, tree, root)]
SOME = 4
"""Lines of a run at which it is killed, spread over all of them."""


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return small_guest(tmp_path_factory.mktemp("guest") / "guest.raw")


def _attempts(folder: Path, guest: Image, form: str) -> Attempts:
    folder.mkdir()
    job = Attempts(folder)
    copy_of(guest, job.source)
    asked = job.order.migration.with_changes(out_format=form)
    job.order = job.order.with_changes(helper=default_helper(), migration=asked)
    job.result = job.out / f"web01.{form}"
    return job


def _content(job: Attempts, guest: Image, form: str) -> dict[str, tuple[int, bytes]]:
    raw = job.out / "look.raw"
    sh("qemu-img", "convert", "-f", form, "-O", "raw", job.result, raw)
    return content_of(guest, raw)


@pytest.fixture(scope="module")
def clean(guest: Image, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, bytes]]:
    job = _attempts(tmp_path_factory.mktemp("clean") / "job", guest, "qcow2")
    assert job.run()[1] == ""
    found = _content(job, guest, "qcow2")
    assert b"UUID=" in found["etc/fstab"][1] and b"/dev/sda1" not in found["boot/grub/grub.cfg"][1]
    return found


def _die_and_go_on(folder: Path, guest: Image, form: str, line: Line, clean: dict[str, tuple[int, bytes]]) -> None:
    job = _attempts(folder, guest, form)
    if not killed_before(line, job.run):
        return
    started, code = job.run()
    assert code == "", line
    assert Stage.REPAIR in started
    assert _content(job, guest, form) == clean, line
    if form == "qcow2":
        assert qemu_img.check(job.result) is None
    assert list(job.conversions.iterdir()) == []


@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_a_kill_leaves_no_trace_in_the_guest(
    form: str, guest: Image, clean: dict[str, tuple[int, bytes]], tmp_path: Path
) -> None:
    lines = lines_of(_attempts(tmp_path / "lines", guest, form).run, WATCHED)
    for number, line in enumerate(lines[len(lines) // SOME - 1 :: len(lines) // SOME]):
        _die_and_go_on(tmp_path / str(number), guest, form, line, clean)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_a_kill_at_any_line_leaves_no_trace_in_the_guest(
    form: str, guest: Image, clean: dict[str, tuple[int, bytes]], tmp_path: Path
) -> None:
    lines = lines_of(_attempts(tmp_path / "lines", guest, form).run, WATCHED)
    for number, line in enumerate(lines):
        _die_and_go_on(tmp_path / str(number), guest, form, line, clean)


@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_a_note_of_another_version_leaves_no_trace_in_the_guest(
    form: str, guest: Image, clean: dict[str, tuple[int, bytes]], tmp_path: Path
) -> None:
    """The daemon was upgraded between two attempts: the image is converted again."""
    job = _attempts(tmp_path / "job", guest, form)
    assert killed_before(line_of(overlays.Overlays.commit), job.run)
    note = job.folder / "repair" / overlays.NOTE
    note.write_text(json.dumps(json.loads(note.read_text()) | {"of_another_version": 1}))
    assert job.run()[1] == ""
    assert _content(job, guest, form) == clean


@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_a_full_conversion_directory_is_no_fault_of_the_guest(form: str, guest: Image, tmp_path: Path) -> None:
    """The job waits for space, with the stages that it has finished."""
    with file_system(tmp_path, 700) as conversions:
        job = _attempts(tmp_path / "job", guest, form)
        job.order = job.order.with_changes(conversion_dir=conversions)
        filler = conversions / "filler"

        def fill(stage: Stage) -> None:
            if stage is Stage.CONVERT:
                _fill(filler)

        assert job.run(fill) == ([Stage.PLAN, Stage.CONVERT, Stage.REPAIR], "space-short")
        filler.unlink()
        started, code = job.run()
        assert code == ""
        assert started[0] is Stage.REPAIR


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (64 * MIB, MIB, 4096):
            with suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)


def test_leaks_alone_are_repaired(guest: Image, tmp_path: Path) -> None:
    """A power cut leaves them: clusters that are counted as used, and that nothing uses."""
    job = _attempts(tmp_path / "job", guest, "qcow2")
    seen: list[str] = []

    def leak(stage: Stage) -> None:
        if stage is Stage.REPAIR:
            image = job.folder / "disk1.qcow2"
            sh("qemu-img", "snapshot", "-c", "one", image)
            with image.open("r+b") as file:  # the header forgets the snapshot: its tables are leaks
                file.seek(60)
                file.write(bytes(12))
            done = subprocess.run(["qemu-img", "check", image], capture_output=True, text=True, check=False)
            seen.append(done.stdout)

    assert job.run(leak)[1] == ""
    assert "leaked clusters" in seen[0], seen
    assert "No errors" in sh("qemu-img", "check", job.result)


def test_a_damaged_image_is_converted_again(guest: Image, tmp_path: Path) -> None:
    job = _attempts(tmp_path / "job", guest, "qcow2")

    def damage(stage: Stage) -> None:
        if stage is Stage.REPAIR:
            with (job.folder / "disk1.qcow2").open("r+b") as file:
                file.seek(40)  # of its first table
                file.write((1 << 40).to_bytes(8, "big"))

    assert job.run(damage)[1] == "image-damaged"
    assert job.order.finished.guest is not None
    job.order = job.order.with_changes(finished=Finished())  # as the daemon does
    assert job.run() == (list(Stage), "")
