"""Reading VMDKs that qemu-img writes: the bytes are the same as the ones it reads itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyper2kvmd.disk.blocks import RUN_LIMIT
from hyper2kvmd.errors import Failure
from tests.support.disks import sh
from tests.support.vmdk import GRAIN, SUBFORMATS, full, make, mixed, seen_by_qemu
from tests.support.vmdk_images import content, read, vmdk_source

SIZES = [512, GRAIN, 3 * GRAIN + 512, 32 * 1024 * 1024 + GRAIN - 1536]


def empty(_: int) -> bytes:
    return b""


@pytest.mark.parametrize("fill", [empty, full, mixed])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_every_byte_is_what_qemu_reads(subformat: str, size: int, fill: Callable[[int], bytes], tmp_path: Path) -> None:
    data = fill(size).ljust(size, b"\0")
    path = make(tmp_path, subformat, data, size)
    seen = content(path)
    assert seen == data
    assert seen == seen_by_qemu(path)


@pytest.mark.parametrize("subformat", SUBFORMATS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 9000),
    writes=st.lists(st.tuples(st.integers(0, 8999), st.integers(1, 700), st.integers(0, 255)), max_size=12),
)
def test_random_extents(
    subformat: str, tmp_path_factory: pytest.TempPathFactory, size: int, writes: list[tuple[int, int, int]]
) -> None:
    """Sizes and offsets in sectors."""
    disk = bytearray(size * 512)
    for at, length, byte in writes:
        stop = min(size, at + length)
        disk[at * 512 : stop * 512] = bytes([byte]) * (max(0, stop - at) * 512)
    path = make(tmp_path_factory.mktemp("random"), subformat, bytes(disk), len(disk))
    assert content(path) == disk == seen_by_qemu(path)


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_windows_of_any_size_give_the_same_runs(subformat: str, tmp_path: Path) -> None:
    size = 3 * RUN_LIMIT + 5 * 512
    path = make(tmp_path, subformat, mixed(size), size)
    with vmdk_source(path) as source:
        whole = list(source.runs(0, size))
        for window in (512, 65536 + 512, 5 << 20, RUN_LIMIT, 1 << 40):
            assert [run for at in range(0, size, window) for run in source.runs(at, at + window)] == whole
        if subformat != "streamOptimized":
            assert len(whole) < size // GRAIN / 2, "adjacent grains were not joined"
            assert not any(run.packed for run in whole)


def test_a_split_disk_is_read_across_its_extents(tmp_path: Path) -> None:
    gib = 1 << 30
    for subformat in ("twoGbMaxExtentSparse", "twoGbMaxExtentFlat"):
        folder = tmp_path / subformat
        folder.mkdir()
        path = folder / "disk.vmdk"
        sh("qemu-img", "create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", path, str(4 * gib + 512))
        places = [0, 2 * gib - 4096, 4 * gib - 8192]
        for place in places:
            sh("qemu-io", "-f", "vmdk", "-c", f"write -P {place // gib + 1} {place} 8k", path)
        with vmdk_source(path) as source:
            assert source.virtual_size == 4 * gib + 512
            assert len(source.files) == 4
            assert source.data_bytes < 1 << 20
            for place in places:
                found = b""
                for run in source.runs(place // RUN_LIMIT * RUN_LIMIT, place + 8192):
                    data = source.load(run)
                    found += data[max(0, place - run.guest) : max(0, place + 8192 - run.guest)]
                assert found == bytes([place // gib + 1]) * 8192


def test_holes_of_flat_extents_cost_nothing(tmp_path: Path) -> None:
    flat = tmp_path / "disk-flat.vmdk"
    with flat.open("wb") as file:
        file.seek(1 << 39)
        file.write(b"x" * 65536)
        file.seek(1 << 40)
        file.write(b"x" * 8192)
    path = tmp_path / "disk.vmdk"
    path.write_text(
        '# Disk DescriptorFile\nparentCID=ffffffff\ncreateType="vmfs"\n'
        f'RW {(1 << 40) // 512} VMFS "disk-flat.vmdk"\nRW 2048 ZERO\nRW 16 FLAT "disk-flat.vmdk" {(1 << 40) // 512}\n'
    )
    with vmdk_source(path) as source:
        runs = list(source.runs(0, source.virtual_size))
        assert source.virtual_size == (1 << 40) + (1 << 20) + 8192
        assert [(run.guest, run.offset) for run in runs] == [(1 << 39, 1 << 39), ((1 << 40) + (1 << 20), 1 << 40)]
        assert source.data_bytes == sum(run.length for run in runs) == 65536 + 8192
        assert source.load(runs[1]) == b"x" * 8192
        assert len(source.files) == 2


def test_a_flat_extent_cut_short_is_noticed(tmp_path: Path) -> None:
    path = make(tmp_path, "monolithicFlat", full(1 << 20), 1 << 20)
    flat = tmp_path / "disk-flat.vmdk"
    with flat.open("r+b") as file:
        file.truncate((1 << 20) - 512)
    with pytest.raises(Failure) as caught, vmdk_source(path):
        pass
    assert caught.value.code == "source-truncated"
    assert f"ends at byte {(1 << 20) - 512}" in caught.value.message


def test_the_file_opened_is_the_one_that_is_read(tmp_path: Path) -> None:
    path = make(tmp_path, "monolithicSparse", mixed(1 << 20), 1 << 20)
    before = seen_by_qemu(path)
    with vmdk_source(path) as source:
        path.rename(tmp_path / "moved")
        path.write_bytes(b"something else")
        assert read(source) == before
