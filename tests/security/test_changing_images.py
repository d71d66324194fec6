"""Images that change after they were looked at, or whose size cannot be told from what they occupy."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hyper2kvmd.disk.engine.copy import CopyLimits
from hyper2kvmd.disk.images.image import NewImage
from hyper2kvmd.disk.ranges import UNIT, Ranges
from hyper2kvmd.disk.sources import sampling
from hyper2kvmd.disk.sources.location import open_disk
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.disks import LocalFile
from hyper2kvmd.model.jobs import Stage
from tests.support.attempts import Attempts
from tests.support.disks import sh
from tests.support.filtered import without_landlock
from tests.support.host import MIB

SECRET = b"the host's own secret "


def changing_qcow2(folder: Path, secret: Path) -> tuple[Path, Path]:
    """A sound QCOW2, and its first cluster as its owner writes it later: with a backing file."""
    image, later = folder / "disk.qcow2", folder / "later"
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-o", "backing_fmt=raw", "-b", secret, image, "1M")
    later.write_bytes(image.read_bytes()[: 1 << 16])
    with image.open("r+b") as file:
        file.seek(8)
        file.write(bytes(12))  # backing_file_offset and backing_file_size
    return image, later


READ_AFTER_A_CHANGE = """
import sys
from pathlib import Path
from hyper2kvmd.disk.files import open_file
from hyper2kvmd.disk.qemu import qemu_img
from hyper2kvmd.disk.sources.foreign.qcow2 import read_qcow2
image, later, out = map(Path, sys.argv[1:4])
file = open_file(image)
read_qcow2(file)
with image.open("r+b") as stream:
    stream.write(later.read_bytes())
qemu_img.walk(file, "qcow2", lambda *found: print(found))
settings = {"compress": False, "reserve": False, "threads": 1, "bytes_per_second": None}
qemu_img.convert(file, "qcow2", out, "raw", virtual_size=1 << 20, **settings, on_fraction=lambda _: None)
"""


def test_a_backing_file_that_is_written_after_the_image_was_vetted(tmp_path: Path) -> None:
    """On a kernel without Landlock; through a mapping on tmpfs not even the times of the file change."""
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET.ljust(MIB, b"!"))
    image, later = changing_qcow2(tmp_path, secret)
    done = unconfined(READ_AFTER_A_CHANGE, image, later, tmp_path / "out.raw")
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
    assert (tmp_path / "out.raw").read_bytes() == bytes(MIB)


def unconfined(script: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "-c", script, *arguments],
        preexec_fn=without_landlock,
        capture_output=True,
        text=True,
        check=False,
    )


OPEN_AS_SUBMITTER = """
import sys
from pathlib import Path
from hyper2kvmd.disk.sources.location import open_disk
from hyper2kvmd.errors import Failure
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.host.person import Person
from hyper2kvmd.model.disks import LocalFile
path = Path(sys.argv[1])
try:
    with open_disk(LocalFile(path=path), path.parent, Mandate(Person.of(0))):
        print("open")
except Failure as failure:
    print(failure.code)
"""


def test_a_qcow2_of_a_submitter_where_qemu_cannot_be_confined(tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    sh("qemu-img", "create", "-q", "-f", "qcow2", image, "1M")
    assert unconfined(OPEN_AS_SUBMITTER, image).stdout.strip() == "confinement-missing"
    confined = sh(sys.executable, "-B", "-c", OPEN_AS_SUBMITTER, image)
    assert confined.strip() == "open"


FILLED = 192 * MIB


@pytest.mark.parametrize("fmt", ["raw", "qcow2", "vhdx"])
def test_a_disk_that_is_filled_while_it_is_copied(fmt: str, tmp_path: Path) -> None:
    """More than space was promised for is not written."""
    path, image = tmp_path / f"disk.{fmt}", NewImage(tmp_path / "image", "raw", data_bytes=4 * MIB)
    options = ["-o", "subformat=fixed"] if fmt == "vhdx" else []  # else its table would change as well
    sh("qemu-img", "create", "-q", "-f", fmt, *options, path, "256M")
    fill(path, fmt, 4 * MIB)
    later = Path(shutil.copy(path, tmp_path / "later"))
    fill(later, fmt, FILLED)
    with open_disk(LocalFile(path=path), tmp_path) as source:
        assert source.data_bytes == 4 * MIB
        with path.open("r+b") as file:  # not by QEMU, which respects its own lock
            file.write(later.read_bytes())
        with pytest.raises(MigrationFailed) as caught:
            source.copy_into(image, CopyLimits(threads=1), lambda _: None)
    assert caught.value.code == "source-changed"
    assert image.path.stat().st_blocks * 512 < FILLED


def fill(path: Path, fmt: str, length: int) -> None:
    sh("qemu-io", "-f", fmt, "-c", f"write -q -P 7 0 {length}", path)


def test_a_disk_that_holds_nothing_where_samples_could_be_expected() -> None:
    """Of each size the same places were looked at: one could be made that seems empty."""
    units = 4 * sampling.SAMPLES
    expected = random.Random(units)  # noqa: S311 - as it was
    shares = [units * number // sampling.SAMPLES for number in range(sampling.SAMPLES + 1)]
    empty = {expected.randrange(low, high) * UNIT for low, high in itertools.pairwise(shares)}
    stored = Ranges([(0, units * UNIT)])

    def read(start: int, stop: int) -> bytes:
        return bytes(stop - start) if start in empty else b"x"

    assert sampling.content_bytes(stored, read) > stored.length // 2


def test_a_checksum_of_holes_without_end(tmp_path: Path) -> None:
    """A file of 16 TiB that occupies nothing would be hashed for hours."""
    job = Attempts(tmp_path, checksum=True, dry_run=True)
    os.truncate(job.source, 5 << 40)
    assert job.run() == ([Stage.PLAN], "checksum-too-long")
