"""Copies that are killed with SIGKILL and taken up again: the image is the one that an undisturbed copy makes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyper2kvmd.disk.blocks import Run
from hyper2kvmd.disk.engine import batches, checkpoint, copy_worker
from hyper2kvmd.disk.engine import copy as engine
from hyper2kvmd.disk.engine.checkpoint import Checkpoint
from hyper2kvmd.disk.engine.copy import Amounts, CopyLimits, copy
from hyper2kvmd.disk.images.qcow2 import WINDOW
from tests.support.copy_child import opened
from tests.support.copying import disks, image_of, mounted, require_same
from tests.support.disks import sh
from tests.support.sources import KINDS, Kind, MadeSource, Part, content, make_target, write_raw

MIB = 1 << 20
WINDOWS = 40
PART = 2 * MIB + 4096
TOTAL = WINDOWS * PART
RATE = 40 * MIB
DENSE = 512 * MIB


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Gone afterwards: what lies there is large."""
    folder = tmp_path_factory.mktemp("disks")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def disk(folder: Path) -> Path:
    """Some data in each of 40 windows."""
    raw = folder / "disk.raw"
    with raw.open("wb") as file:
        for number in range(WINDOWS):
            file.seek(number * WINDOW + number * 8192)
            file.write(content(number, PART))
        file.truncate(WINDOWS * WINDOW - 512)
    return raw


@pytest.fixture(scope="module")
def dense(request: pytest.FixtureRequest, folder: Path) -> Iterator[Path]:
    """A VMDK of 512 MiB in the subformat of the parameter, full from one end to the other."""
    raw, vmdk = folder / "dense.raw", folder / "dense.vmdk"
    write_full(raw, DENSE)
    sh("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={request.param}", raw, vmdk)
    raw.unlink()
    yield vmdk
    vmdk.unlink()


def write_full(path: Path, size: int) -> None:
    block = content(7, MIB)
    with path.open("wb") as file:
        for number in range(size // MIB):
            file.write(number.to_bytes(4, "big") + block[4:])


def start(disk: Path, image: Path, kind: Kind, rate: int = RATE) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tests.support.copy_child", str(disk), str(image), kind, str(rate)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def kill_at(child: subprocess.Popen[str], read: int) -> int:
    """Kill the child once it has read so much; what it had read by then, by its own account."""
    assert child.stdout is not None
    seen = 0
    for line in child.stdout:
        seen = int(line)
        if seen >= read:
            child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it was done before it could be killed"
    child.stdout.close()
    return seen


def recorded(image: Path) -> int:
    """The guest bytes that need not be copied again."""
    record = checkpoint.path_for(image, checkpoint.LATEST)
    return Checkpoint.model_validate_json(record.read_bytes()).read if record.exists() else 0


def whole(disk: Path, image: Path, kind: Kind, identity: str = "one") -> Amounts:
    with opened(disk) as source, contextlib.closing(make_target(kind, image, source.virtual_size)) as target:
        return copy(source, target, identity=identity)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_again_and_again(kind: Kind, disk: Path, tmp_path: Path) -> None:
    whole(disk, tmp_path / "undisturbed", kind)
    image, pick = tmp_path / "image", Random()  # noqa: S311 - any place will do
    for part in (0.2, 0.5, 0.7):
        kill_at(start(disk, image, kind), int(TOTAL * pick.uniform(part, part + 0.1)))
        assert kind == "raw" or image.read_bytes()[:4] == bytes(4), "a killed copy passes for an image"
    moved = whole(disk, image, kind)
    assert moved.read == moved.total == TOTAL
    assert moved.resumed > TOTAL // 2
    sh("cmp", tmp_path / "undisturbed", image)
    names = {"undisturbed", "undisturbed.complete", "image", "image.complete"}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize(
    ("dense", "kind"),
    [
        ("monolithicSparse", "qcow2"),
        pytest.param("monolithicSparse", "raw", marks=pytest.mark.slow),
        pytest.param("monolithicSparse", "compressed", marks=pytest.mark.slow),
        pytest.param("streamOptimized", "qcow2", marks=pytest.mark.slow),
        pytest.param("streamOptimized", "raw", marks=pytest.mark.slow),
        ("streamOptimized", "compressed"),
    ],
    indirect=["dense"],
)
def test_killed_at_four_fifths_less_than_a_tenth_is_repeated(kind: Kind, dense: Path, folder: Path) -> None:
    image, undisturbed = folder / "image", folder / "undisturbed"
    try:
        read = kill_at(start(dense, image, kind, rate=0), DENSE * 4 // 5)
        moved = whole(dense, image, kind)
        assert read - moved.resumed < DENSE // 10
        whole(dense, undisturbed, kind)
        sh("cmp", undisturbed, image)
    finally:
        for path in (*folder.glob("image*"), *folder.glob("undisturbed*")):
            path.unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_killed_anywhere_any_number_of_times(kind: Kind, tmp_path: Path) -> None:
    size, raw = 200 * MIB, tmp_path / "full.raw"
    write_full(raw, size)
    whole(raw, tmp_path / "undisturbed", kind)
    pick, image, lost = Random(), tmp_path / "image", 0  # noqa: S311
    before = 0
    for _ in range(6):
        read = kill_at(start(raw, image, kind, 80 * MIB), pick.randrange(before, max(before + 1, size * 9 // 10)))
        before = recorded(image)
        lost = max(lost, read - before)
    assert whole(raw, image, kind).resumed == before
    assert lost < size // 10
    sh("cmp", tmp_path / "undisturbed", image)
    require_same(raw, image, kind)
    raw.unlink()


class Gone(Exception):
    """The source, half way."""


class Ending(MadeSource):
    """One that is gone after `left` of its runs."""

    left: int

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        for number, run in enumerate(super().runs(start, stop)):
            if number == self.left:
                raise Gone
            yield run


@given(
    disk=disks(), kind=st.sampled_from(KINDS), threads=st.integers(1, 3), stops=st.lists(st.integers(1, 9), max_size=4)
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ended_between_any_batches(
    disk: tuple[int, list[Part], int],
    kind: Kind,
    threads: int,
    stops: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tiny batches, few at a time, and a checkpoint behind each."""
    for what in ("BATCH", "PIECE"):
        monkeypatch.setattr(batches, what, 65536)
    monkeypatch.setattr(engine, "AHEAD", 1)
    monkeypatch.setattr(copy_worker, "CHECKPOINT_SECONDS", 0.0)
    size, parts, gap = disk
    for leftover in tmp_path.iterdir():
        leftover.unlink()
    limits = CopyLimits(threads)
    with contextlib.closing(MadeSource(tmp_path / "made", size, parts, gap)) as source:
        image_of(source, tmp_path / "undisturbed", kind, limits=limits)
        for stop in stops:
            with contextlib.closing(Ending(tmp_path / "made", size, parts, gap)) as ending, contextlib.suppress(Gone):
                ending.left = stop
                image_of(ending, tmp_path / "image", kind, limits=limits)
        moved = image_of(source, tmp_path / "image", kind, limits=limits)
    assert moved.read == moved.total
    sh("cmp", tmp_path / "undisturbed", tmp_path / "image")


def test_ended_between_shared_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker: of two, one could do all of it while the first blocks take the other long."""
    monkeypatch.setattr(engine, "AHEAD", 1)
    monkeypatch.setattr(engine, "WORKERS", 1)
    monkeypatch.setattr(copy_worker, "CHECKPOINT_SECONDS", 0.0)
    size = 4 * WINDOW
    parts = [Part(number * 160 * MIB + 4096 * number, content(number, 8 * MIB), False) for number in range(12)]
    with mounted(tmp_path, "xfs", 512) as place:
        with contextlib.closing(Ending(place / "made", size, parts, 4096)) as source:
            source.left = 9
            with pytest.raises(Gone):
                image_of(source, place / "image", limits=CopyLimits(1))
            source.left = len(parts)
            moved = image_of(source, place / "image")
            assert moved.resumed >= 3 * 8 * MIB
            assert moved.written <= MIB, "blocks were copied that could have been shared"
            image_of(source, place / "undisturbed")
        sh("cmp", place / "undisturbed", place / "image")
        require_same(write_raw(tmp_path / "raw", size, parts), place / "image", "qcow2")


def test_a_finished_image_is_not_copied_again_unless_it_was_changed(disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    whole(disk, image, "qcow2")
    before = image.stat()
    moved = whole(disk, image, "qcow2")
    assert (moved.resumed, moved.written) == (TOTAL, 0)
    assert image.stat().st_ctime_ns == before.st_ctime_ns
    sh("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 512", image)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert whole(disk, image, "qcow2").resumed == 0
    require_same(disk, image, "qcow2")
    assert whole(disk, image, "qcow2", identity="another").resumed == 0


def test_what_only_a_running_host_remembers_is_not_used_after_its_restart(disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    kill_at(start(disk, image, "qcow2", RATE // 2), TOTAL * 3 // 4)
    latest, durable = (checkpoint.path_for(image, kind) for kind in (checkpoint.LATEST, checkpoint.DURABLE))
    found = Checkpoint.model_validate_json(latest.read_bytes())
    latest.write_text(found.with_changes(boot="another").model_dump_json())
    on_disk = Checkpoint.model_validate_json(durable.read_bytes())
    assert 0 < on_disk.read <= found.read and not on_disk.boot
    assert whole(disk, image, "qcow2").resumed == on_disk.read
    require_same(disk, image, "qcow2")


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_something_else_is_not_used(kind: Kind, disk: Path, tmp_path: Path) -> None:
    image, record = tmp_path / "image", checkpoint.path_for(tmp_path / "image", checkpoint.LATEST)
    kill_at(start(disk, image, kind), TOTAL // 2)
    saved = record.read_bytes()
    assert whole(disk, image, kind, identity="another").resumed == 0

    record.write_bytes(saved[: len(saved) // 2])
    assert whole(disk, image, kind).resumed == 0

    record.write_bytes(saved)
    image.unlink()
    image.touch()
    assert whole(disk, image, kind).resumed == 0

    other: Kind = "raw" if kind != "raw" else "qcow2"
    record.write_bytes(saved)
    assert whole(disk, image, other).resumed == 0
    assert not record.exists()


def test_an_image_that_lost_its_data_is_begun_again(disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    kill_at(start(disk, image, "qcow2"), TOTAL // 2)
    os.truncate(image, MIB)
    assert whole(disk, image, "qcow2").resumed == 0
    sh("qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk, image)
