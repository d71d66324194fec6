"""The copy engine into real images: qemu-img says whether a guest would read the same bytes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyper2kvmd.disk.blocks import Run
from hyper2kvmd.disk.engine import checkpoint
from hyper2kvmd.disk.engine.copy import Amounts, CopyLimits
from hyper2kvmd.disk.images.qcow2 import CLUSTER, full_size
from hyper2kvmd.disk.qemu import qemu_img
from hyper2kvmd.errors import Failure, Interrupted
from tests.support.copying import MIB, disks, image_of, mounted, require_same
from tests.support.disks import sh
from tests.support.file_systems import file_system
from tests.support.sources import KINDS, Kind, MadeSource, Part, RawSource, content, write_raw


@given(disk=disks(), kind=st.sampled_from(KINDS), threads=st.integers(1, 3))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_extents_read_the_same(disk: tuple[int, list[Part], int], kind: Kind, threads: int, tmp_path: Path) -> None:
    size, parts, gap = disk
    image = tmp_path / "image"
    image.unlink(missing_ok=True)
    with contextlib.closing(MadeSource(tmp_path / "made", size, parts, gap)) as source:
        amounts = image_of(source, image, kind, limits=CopyLimits(threads=threads))
    assert amounts.read == amounts.total == sum(len(part.data) for part in parts)
    require_same(write_raw(tmp_path / "raw", size, parts), image, kind)


@pytest.mark.parametrize("size", [512, 65536, 20 << 30, 62 << 40])
@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_disk(kind: Kind, size: int, tmp_path: Path) -> None:
    if kind == "raw" and size > 1 << 40:
        size = 1 << 40  # what ext4 can hold in one file
    with contextlib.closing(MadeSource(tmp_path / "made", size, [])) as source:
        image_of(source, tmp_path / "image", kind)
    fmt: Literal["qcow2", "raw"] = "raw" if kind == "raw" else "qcow2"
    assert qemu_img.virtual_size(tmp_path / "image", fmt) == size
    assert fmt == "raw" or qemu_img.check(tmp_path / "image") is None
    assert (tmp_path / "image").stat().st_blocks * 512 <= 4 * MIB


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk of two windows and a bit, data and zeros throughout, no hole in its file."""
    raw = tmp_path_factory.mktemp("full") / "disk.raw"
    block = content(1, MIB)
    with raw.open("wb") as file:
        for number in range(1026):
            file.write(bytes(MIB) if number % 3 else number.to_bytes(4, "big") + block[4:])
        file.write(content(2, 512))
    return raw


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_becomes_the_same_file_with_any_number_of_threads(kind: Kind, full: Path, tmp_path: Path) -> None:
    with contextlib.closing(RawSource(full)) as source:
        image_of(source, tmp_path / "one", kind, limits=CopyLimits(threads=1))
        image_of(source, tmp_path / "five", kind, limits=CopyLimits(threads=5))
    sh("cmp", tmp_path / "one", tmp_path / "five")
    require_same(full, tmp_path / "one", kind)
    assert (tmp_path / "one").stat().st_blocks * 512 <= 343 * MIB


def test_the_estimate_of_the_files_length_is_its_length(full: Path, tmp_path: Path) -> None:
    with contextlib.closing(RawSource(full)) as source:
        image_of(source, tmp_path / "image")
    data = 342 * MIB + CLUSTER
    assert (tmp_path / "image").stat().st_size == full_size(full.stat().st_size, data)


@pytest.mark.parametrize("make", ["xfs", "btrfs"])
def test_blocks_are_shared_where_the_file_system_can(make: str, tmp_path: Path) -> None:
    with mounted(tmp_path, make, 512) as folder:
        size = 200 * MIB + 5 * 512
        with (folder / "disk.raw").open("wb") as file:
            file.truncate(size)
            for at in (0, 37 * MIB + 4096, 150 * MIB):
                file.seek(at)
                file.write(os.urandom(30 * MIB))
            file.seek(size - 512)
            file.write(b"end".ljust(512))
        sh("sync", "-f", folder)
        used = used_bytes(folder)
        with contextlib.closing(RawSource(folder / "disk.raw")) as source:
            amounts = image_of(source, folder / "image")
        sh("sync", "-f", folder)
        assert used_bytes(folder) - used <= 2 * MIB
        assert amounts.written <= MIB
        require_same(folder / "disk.raw", folder / "image", "qcow2")


def used_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


@pytest.mark.parametrize("make", ["xfs", "ext4"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_reserved_is_there_when_the_guest_writes(kind: Kind, make: str, tmp_path: Path) -> None:
    size = 64 * MIB
    parts = [Part(0, content(3, 3 * MIB), True), Part(40 * MIB, content(4, 512), False)]
    with mounted(tmp_path, make, 400) as folder:
        with contextlib.closing(MadeSource(tmp_path / "made", size, parts)) as source:
            image_of(source, folder / "image", kind, reserve=True)
        require_same(write_raw(tmp_path / "raw", size, parts), folder / "image", kind)
        with contextlib.suppress(OSError), (folder / "rest").open("wb", buffering=0) as rest:
            while True:
                rest.write(bytes(65536))
        fmt = "raw" if kind == "raw" else "qcow2"
        sh("qemu-io", "-t", "writeback", "-f", fmt, "-c", "write -P 7 0 64M", "-c", "flush", folder / "image")
        sh("qemu-io", "-f", fmt, "-c", "read -P 7 0 64M", folder / "image")


def failure(call: Callable[[], object]) -> str:
    with pytest.raises(Failure) as caught:
        call()
    return caught.value.code


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reserve", [False, True])
def test_a_full_file_system_is_called_by_its_name(kind: Kind, reserve: bool, tmp_path: Path) -> None:
    data = os.urandom(40 * MIB)
    with (
        file_system(tmp_path, 16) as folder,
        contextlib.closing(MadeSource(tmp_path / "made", 40 * MIB, [Part(0, data, False)])) as source,
    ):
        assert failure(lambda: image_of(source, folder / "image", kind, reserve=reserve)) == "disk-full"
        assert (folder / "image").read_bytes()[:4] != b"QFI\xfb"
        assert not checkpoint.path_for(folder / "image", checkpoint.LATEST).exists(), (
            "what was not flushed is uncertain"
        )


class Damaged(MadeSource):
    """One that differs from what its tables say in one way."""

    def __init__(self, path: Path, how: str) -> None:
        super().__init__(path, 64 * MIB, [Part(at * MIB, content(at, MIB), at % 2 == 0) for at in range(64)])
        self.how = how
        if how == "more":
            self.data_bytes -= 40 * MIB

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        found = list(super().runs(start, stop))
        if self.how == "fewer":
            found.pop()
        if self.how == "overlap":
            found.append(found[-1])
        if self.how == "outside":
            found.append(Run(64 * MIB, 512, self._fd, 0))
        yield from found

    def load(self, run: Run) -> bytes:
        data = super().load(run)
        if self.how == "short" and run.guest == 20 * MIB:
            return data[:-1]
        if self.how == "io" and run.guest == 20 * MIB:
            raise OSError(5, "EIO")
        return data


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("fewer", "content-incomplete"),
        ("more", "source-changed"),
        ("overlap", "content-invalid"),
        ("outside", "content-invalid"),
        ("short", "content-incomplete"),
        ("io", "disk-read-failed"),
    ],
)
def test_a_source_that_is_not_what_it_says(how: str, code: str, tmp_path: Path) -> None:
    with contextlib.closing(Damaged(tmp_path / "made", how)) as source:
        assert failure(lambda: image_of(source, tmp_path / "image")) == code
    assert (tmp_path / "image").read_bytes()[:4] != b"QFI\xfb"


def test_a_file_that_ends_too_early(tmp_path: Path) -> None:
    with contextlib.closing(MadeSource(tmp_path / "made", MIB, [Part(0, content(1, MIB), False)])) as source:
        os.truncate(tmp_path / "made", MIB // 2)
        assert failure(lambda: image_of(source, tmp_path / "image")) == "content-incomplete"


def test_progress_ends_with_everything_and_an_interruption_ends_the_copy(full: Path, tmp_path: Path) -> None:
    heard: list[Amounts] = []

    def stop(amounts: Amounts) -> None:
        heard.append(amounts)
        if amounts.read:
            raise Interrupted("interrupted", "stopped", hint="start again")

    with contextlib.closing(RawSource(full)) as source:
        slow = CopyLimits(bytes_per_second=100 * MIB)
        with pytest.raises(Interrupted):
            image_of(source, tmp_path / "image", on_progress=stop, limits=slow)
        assert 0 < heard[-1].read < heard[-1].total
        image_of(source, tmp_path / "image", on_progress=heard.append)
    last = heard[-1]
    assert last.read == last.total == full.stat().st_size
    assert 342 * MIB <= last.written <= 344 * MIB
    assert {path.name for path in tmp_path.iterdir()} == {"image", "image.complete"}


def test_bandwidth_is_capped(tmp_path: Path) -> None:
    heard: list[Amounts] = []
    with contextlib.closing(MadeSource(tmp_path / "made", 12 * MIB, [Part(0, content(1, 12 * MIB), False)])) as source:
        image_of(source, tmp_path / "image", on_progress=heard.append, limits=CopyLimits(2, 12 * MIB))
    assert len({amounts.read for amounts in heard}) >= 3
