"""Copies that are killed with SIGKILL and taken up again: the image is the one that an undisturbed copy makes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from hyper2kvmd.disk import checkpoint
from hyper2kvmd.disk.copy import Amounts, copy
from tests.integration.disks import sh
from tests.integration.sources import KINDS, Kind, RawSource, content, make_target

MIB = 1 << 20
WINDOWS = 40
PART = 2 * MIB + 4096
TOTAL = WINDOWS * PART
RATE = 40 * MIB


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some data in each of 40 windows."""
    raw = tmp_path_factory.mktemp("disk") / "disk.raw"
    with raw.open("wb") as file:
        for number in range(WINDOWS):
            file.seek(number * 512 * MIB + number * 8192)
            file.write(content(number, PART))
        file.truncate(WINDOWS * 512 * MIB - 512)
    return raw


def start(disk: Path, image: Path, kind: Kind, rate: int = RATE) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tests.integration.copy_child", str(disk), str(image), kind, str(rate)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def kill_at(child: subprocess.Popen[str], read: int) -> int:
    """Kill the child once it has read so much; what it had read by its own account."""
    assert child.stdout is not None
    seen = 0
    for line in child.stdout:
        seen = int(line)
        if seen >= read:
            break
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it was done before it could be killed"
    child.stdout.close()
    return seen


def whole(disk: Path, image: Path, kind: Kind, identity: str = "one") -> Amounts:
    with (
        contextlib.closing(RawSource(disk)) as source,
        contextlib.closing(make_target(kind, image, source.virtual_size)) as target,
    ):
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
    assert {path.name for path in tmp_path.iterdir()} == {"undisturbed", "image"}


def test_killed_at_four_fifths_little_is_repeated(disk: Path, tmp_path: Path) -> None:
    read = kill_at(start(disk, tmp_path / "image", "qcow2", RATE // 2), TOTAL * 4 // 5)
    moved = whole(disk, tmp_path / "image", "qcow2")
    assert read - moved.resumed < TOTAL // 10


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
