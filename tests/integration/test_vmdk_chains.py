"""Snapshot chains are read as one disk, as qemu-img reads them; what is not a sound chain is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.errors import Failure
from tests.support.disks import sh
from tests.support.vmdk import SUBFORMATS, child_of, cid_of, full, make, mixed, seen_by_qemu
from tests.support.vmdk_images import Grains, content, cowd, descriptor, expected, hosted, sesparse, vmdk_source

SIZE = 5 * 1024 * 1024 + 1536


def failed(path: Path) -> Failure:
    with pytest.raises(Failure) as caught, vmdk_source(path):
        pass
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_a_chain_of_three_is_one_disk(subformat: str, tmp_path: Path) -> None:
    base = make(tmp_path, subformat, mixed(SIZE), SIZE, "base.vmdk")
    first = child_of(base, "first.vmdk", "write -P 1 70000 1000", "write -P 2 2M 200k", "write -z 3M 256k")
    second = child_of(
        first, "second.vmdk", "write -P 3 2100k 4k", "write -P 4 3200k 70k", f"write -P 5 {SIZE - 512} 512"
    )
    seen = content(second)
    assert seen == seen_by_qemu(second)
    assert seen[70000:71000] == b"\1" * 1000 and seen[SIZE - 512 :] == b"\5" * 512
    assert seen[3 << 20 : (3 << 20) + 65536] == bytes(65536)
    with vmdk_source(second) as source:
        assert source.files[0].path == second
        assert {file.path for file in source.files} == set(tmp_path.iterdir())


@pytest.mark.parametrize("size", [SIZE + (3 << 20), SIZE + 512])
def test_a_disk_that_grew_after_its_snapshot(size: int, tmp_path: Path) -> None:
    base = make(tmp_path, "monolithicSparse", full(SIZE), SIZE, "base.vmdk")
    child = child_of(base, "child.vmdk", f"write -P 7 {size - 512} 512", size=size)
    assert content(child) == seen_by_qemu(child)


def test_a_disk_that_shrank_after_its_snapshot(tmp_path: Path) -> None:
    base = make(tmp_path, "monolithicSparse", full(SIZE), SIZE, "base.vmdk")
    child = child_of(base, "child.vmdk", "write -P 7 70000 512", size=(1 << 20) + 512)
    seen = content(child)
    assert len(seen) == (1 << 20) + 512
    assert seen == seen_by_qemu(child)


def test_what_a_smaller_disk_between_cut_off_stays_away(tmp_path: Path) -> None:
    base = make(tmp_path, "monolithicSparse", full(SIZE), SIZE, "base.vmdk")
    middle = child_of(base, "middle.vmdk", "write -P 7 0 512", size=1 << 20)
    top = child_of(middle, "top.vmdk", "write -P 8 2M 512", size=SIZE)
    seen = content(top)
    assert seen == seen_by_qemu(top)
    assert not any(seen[3 << 20 :])


def test_small_grains_over_compressed_and_over_large_ones(tmp_path: Path) -> None:
    """A part of a compressed grain is read where the snapshot covers the rest."""
    base = make(tmp_path, "streamOptimized", full(1 << 20), 1 << 20, "base.vmdk")
    below: Grains = {number: full(65536)[:4096] for number in range(1, 250, 3)} | {5: None}
    capacity = (1 << 20) // 512
    middle = hosted(below, capacity, grain=8, parent=(cid_of(base), "base.vmdk")).write(tmp_path / "middle.vmdk")
    above: Grains = {number: b"%03d!" % (number % 1000) * 128 for number in range(0, 2048, 7)}
    (tmp_path / "top-delta.vmdk").write_bytes(cowd(above, capacity))
    top = tmp_path / "top.vmdk"
    line = f'RW {capacity} VMFSSPARSE "top-delta.vmdk"'
    top.write_bytes(descriptor("vmfsSparse", line, parent=("fffffffe", "middle.vmdk")))
    assert content(middle) == seen_by_qemu(middle)
    assert content(top) == seen_by_qemu(top)


def test_an_sesparse_snapshot_of_a_flat_disk(tmp_path: Path) -> None:
    capacity = 4 * 1024 * 1024 // 512
    (tmp_path / "web-flat.vmdk").write_bytes(full(capacity * 512))
    base = descriptor("vmfs", f'RW {capacity} VMFS "web-flat.vmdk"', cid="1234abcd")
    (tmp_path / "web.vmdk").write_bytes(base)
    grains: Grains = {3: b"x" * 4096, 4: None, 900: b"y" * 4096}
    (tmp_path / "web-000001-sesparse.vmdk").write_bytes(sesparse(grains, capacity, unmapped=7))
    line = f'RW {capacity} SESPARSE "web-000001-sesparse.vmdk"'
    child = tmp_path / "web-000001.vmdk"
    child.write_bytes(descriptor("seSparse", line, parent=("1234abcd", "web.vmdk")))
    seen = content(child)
    assert seen == seen_by_qemu(child)
    assert seen[4 * 4096 : 5 * 4096] == seen[7 * 4096 : 8 * 4096] == bytes(4096)
    with vmdk_source(child) as source:
        assert source.data_bytes == (capacity - 2 * 8) * 512
        assert [file.path.name for file in source.files] == [
            "web-000001.vmdk",
            "web-000001-sesparse.vmdk",
            "web.vmdk",
            "web-flat.vmdk",
        ]


def test_a_parent_that_was_written_to_is_refused(tmp_path: Path) -> None:
    base = make(tmp_path, "monolithicSparse", mixed(SIZE), SIZE, "base.vmdk")
    child = child_of(base, "child.vmdk", "write -P 1 0 512")
    with vmdk_source(child):
        pass
    sh("qemu-io", "-f", "vmdk", "-c", "write -P 9 0 512", base)
    assert failed(child).code == "source-parent-differs"


@pytest.mark.parametrize(
    ("hint", "code"),
    [
        ("/etc/shadow", "source-parent-missing"),
        ("../base.vmdk", "source-parent-missing"),
        ("..", "source-parent-missing"),
        ("", "source-parent-missing"),
        ("gone.vmdk", "source-missing"),
        ("link.vmdk", "source-unsafe"),
        ("child.vmdk", "source-unsafe"),
        ("other.vmdk", "source-corrupt"),
        ("raw", "source-not-vmdk"),
    ],
)
def test_a_parent_is_a_vmdk_beside_its_child(hint: str, code: str, tmp_path: Path) -> None:
    capacity = 1280
    (tmp_path / "raw").write_bytes(full(65536))
    hosted({}, capacity).write(tmp_path / "base.vmdk")
    (tmp_path / "link.vmdk").symlink_to("base.vmdk")
    hosted({}, capacity, parent=("fffffffe", "child.vmdk")).write(tmp_path / "other.vmdk")
    child = hosted({}, capacity, parent=("fffffffe", hint)).write(tmp_path / "child.vmdk")
    assert failed(child).code == code


def test_a_parent_id_without_a_name_is_refused(tmp_path: Path) -> None:
    text = descriptor("monolithicFlat", "RW 8 ZERO").replace(b"parentCID=ffffffff", b"parentCID=12345678")
    (tmp_path / "disk.vmdk").write_bytes(text)
    assert failed(tmp_path / "disk.vmdk").code == "source-parent-missing"


@pytest.mark.parametrize("depth", [32, 33])
def test_a_chain_has_an_end(depth: int, tmp_path: Path) -> None:
    grains: list[Grains] = [
        {0: bytes([level + 1]) * 65536, level: bytes([level + 1]) * 65536} for level in range(depth)
    ]
    for level in range(depth):
        parent = ("fffffffe", f"{level - 1}.vmdk") if level else None
        hosted(grains[level], 128 * 40, parent=parent).write(tmp_path / f"{level}.vmdk")
    top = tmp_path / f"{depth - 1}.vmdk"
    if depth > 32:
        assert failed(top).code == "source-unsupported"
        return
    flat = {number: data for level in grains for number, data in level.items()}
    assert content(top) == expected(flat, 128 * 40 * 512, 65536) == seen_by_qemu(top)
