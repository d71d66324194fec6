"""Converting real VMDKs, and showing that a wrong image is noticed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.disk.faults import LARGEST_DISK
from hyper2kvmd.disk.qemu import qemu_img
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.mounts.access import default_helper
from hyper2kvmd.host.space import available
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import (
    Ended,
    Event,
    Progress,
    StepStarted,
    read_event,
)
from tests.support.converting import convert_planned, order_for, planned, prove, prove_all, run_convert, snapshot
from tests.support.disks import empty_disk, sh
from tests.support.file_systems import file_system
from tests.support.vmdk import SUBFORMATS
from tests.support.vmdk_images import descriptor

MIB = 1 << 20


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A partitioned disk of an odd size with an ext4 full of random files."""
    folder = tmp_path_factory.mktemp("source")
    disk = empty_disk(folder / "disk.raw", 96)
    with disk.open("ab") as file:
        file.truncate(96 * MIB + 5 * 512)
    sh("sfdisk", "-q", disk, stdin="label: dos\n2048,,83,*\n")
    tree = folder / "tree"
    tree.mkdir()
    for name in range(20):
        (tree / str(name)).write_bytes(os.urandom(MIB))
    sh("mkfs.ext4", "-q", "-E", f"offset={MIB}", "-d", tree, disk, "90M")
    return disk


def make_vmdk(raw: Path, folder: Path, subformat: str) -> Path:
    target = folder / "disk.vmdk"
    sh("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, target)
    return target


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_every_subformat_becomes_the_same_disk(subformat: str, raw: Path, tmp_path: Path) -> None:
    export, work = tmp_path / "export", tmp_path / "work"
    export.mkdir()
    work.mkdir()
    source = make_vmdk(raw, export, subformat)
    before = snapshot(export)
    events: list[Event] = []
    plan, image = run_convert(source, work, events=events, verify="content")
    disk = plan.disks[0]
    sh("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, image.disks[0].path)
    assert qemu_img.check(image.disks[0].path) is None
    assert disk.virtual_size == image.disks[0].virtual_size == raw.stat().st_size
    assert plan.layout.volumes[0].content == "ext4"
    assert image.file_bytes * 0.95 <= disk.data_bytes <= image.file_bytes * 1.05
    done = [event.done for event in events if isinstance(event, Progress)]
    assert done[-1] == disk.virtual_size
    assert max(event.written for event in events if isinstance(event, Progress)) >= image.file_bytes * 0.95
    assert snapshot(export) == before
    assert {path.name for path in work.iterdir()} == {"disk1.qcow2", "disk1.qcow2.complete"}


def test_two_disks_become_two_images_in_their_order(raw: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    sh("truncate", "--size", "8M", second / "data.raw")
    sh("mkfs.ext4", "-q", second / "data.raw")
    paths = make_vmdk(raw, first, "streamOptimized"), make_vmdk(second / "data.raw", second, "monolithicSparse")
    plan = planned(*paths)
    assert [volume.name for volume in plan.layout.volumes] == ["disk 1, partition 1", "disk 2, whole disk"]
    migration = Migration(vmdk=paths, vm_name="web01", verify="content")
    image = convert_planned(plan, order_for(migration, tmp_path))
    for disk, original in zip(image.disks, (raw, second / "data.raw"), strict=True):
        sh("qemu-img", "compare", "-f", "raw", "-F", "qcow2", original, disk.path)
    assert any(line.startswith("disk 2: all 8388608 bytes") for line in image.evidence)
    swapped = image.with_changes(disks=image.disks[::-1])
    with pytest.raises(MigrationFailed) as caught:
        prove(plan, swapped, tmp_path)
    assert caught.value.code == "content-differs"


def test_one_disk_named_twice_is_refused(raw: Path, tmp_path: Path) -> None:
    source = make_vmdk(raw, tmp_path, "monolithicSparse")
    os.link(source, tmp_path / "other.vmdk")
    with pytest.raises(MigrationFailed) as caught:
        planned(source, tmp_path / "other.vmdk")
    assert caught.value.code == "source-repeated"


def test_raw_and_compressed_images(raw: Path, tmp_path: Path) -> None:
    source = make_vmdk(raw, tmp_path, "streamOptimized")
    for wanted, name in (({"out_format": "raw"}, "disk1.raw"), ({"compress": True}, "disk1.qcow2")):
        _, image = run_convert(source, tmp_path, **wanted)
        assert image.disks[0].path == tmp_path / name
        sh("qemu-img", "compare", "-f", "raw", "-F", image.format, raw, image.disks[0].path)


def test_a_higher_level_makes_a_smaller_image(tmp_path: Path) -> None:
    text = b"".join(path.read_bytes() for path in sorted(Path(os.__file__).parent.glob("*.py")))
    source = tmp_path / "web01.raw"
    source.write_bytes(text.ljust(MIB * 16, b"\0"))
    sizes = {}
    for level in (None, 1, 3, 9):
        _, image = run_convert(source, tmp_path, compress=True, compress_level=level)
        sh("qemu-img", "compare", "-f", "raw", "-F", "qcow2", source, image.disks[0].path)
        sizes[level] = image.disks[0].path.stat().st_size
    assert sizes[1] > sizes[3] == sizes[None] > sizes[9]


@pytest.mark.parametrize("out_format", ["qcow2", "raw"])
def test_reserving_takes_the_full_size_up_front(out_format: str, raw: Path, tmp_path: Path) -> None:
    source = make_vmdk(raw, tmp_path, "monolithicSparse")
    _, image = run_convert(source, tmp_path, preallocate=True, out_format=out_format)
    assert image.file_bytes >= image.disks[0].virtual_size
    sh("qemu-img", "compare", "-f", "raw", "-F", out_format, raw, image.disks[0].path)


@pytest.mark.parametrize("offset", [0, MIB + 1024 + 104])
def test_an_image_that_differs_in_its_metadata_is_noticed(offset: int, raw: Path, tmp_path: Path) -> None:
    source = make_vmdk(raw, tmp_path, "monolithicSparse")
    plan, image = run_convert(source, tmp_path, out_format="raw")
    with image.disks[0].path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(MigrationFailed) as caught:
        prove(plan, image, tmp_path)
    assert caught.value.code == "content-differs"


def test_an_image_cut_short_is_noticed(raw: Path, tmp_path: Path) -> None:
    source = make_vmdk(raw, tmp_path, "monolithicSparse")
    plan, image = run_convert(source, tmp_path, out_format="raw")
    with image.disks[0].path.open("r+b") as file:
        file.truncate(8 * MIB)
        file.truncate(image.disks[0].virtual_size)
    with pytest.raises(MigrationFailed) as caught:
        prove(plan, image, tmp_path)
    assert caught.value.code == "content-differs"


def test_a_full_disk_is_called_by_its_name(raw: Path, tmp_path: Path) -> None:
    source = make_vmdk(raw, tmp_path, "monolithicSparse")
    with file_system(tmp_path, 16) as work, pytest.raises(MigrationFailed) as caught:
        run_convert(source, work)
    assert caught.value.code == "disk-full"
    assert available(tmp_path, "0") > 0


@contextlib.contextmanager
def damaged(path: Path, offset: int) -> Iterator[None]:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 4096)
    yield


def test_a_damaged_stream_is_an_error_and_no_image(raw: Path, tmp_path: Path) -> None:
    source = make_vmdk(raw, tmp_path, "streamOptimized")
    with damaged(source, source.stat().st_size // 2), pytest.raises(MigrationFailed) as caught:
        run_convert(source, tmp_path)
    assert caught.value.code == "source-corrupt"


def test_a_source_that_was_swapped_since_the_plan_is_noticed(raw: Path, tmp_path: Path) -> None:
    source = make_vmdk(raw, tmp_path, "monolithicSparse")
    plan = planned(source)
    source.rename(tmp_path / "old.vmdk")
    make_vmdk(raw, tmp_path, "monolithicSparse")
    order = order_for(Migration(vmdk=(source,), vm_name="web01"), tmp_path)
    with pytest.raises(MigrationFailed) as caught:
        convert_planned(plan, order)
    assert caught.value.code == "source-changed"


@pytest.mark.parametrize("offset", [MIB + 70_001, 90 * MIB])
def test_one_wrong_byte_anywhere_fails_the_content_proof(offset: int, raw: Path, tmp_path: Path) -> None:
    source = make_vmdk(raw, tmp_path, "streamOptimized")
    plan, image = run_convert(source, tmp_path, out_format="raw")
    with image.disks[0].path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(MigrationFailed, match=f"offset {offset} "):
        prove_all(plan, image, tmp_path)


def test_a_disk_that_only_our_reader_knows_is_converted(tmp_path: Path) -> None:
    """QEMU passes over ZERO extents, and so sees a shorter disk."""
    (tmp_path / "disk-flat.vmdk").write_bytes(os.urandom(MIB))
    source = tmp_path / "disk.vmdk"
    source.write_text(
        '# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\ncreateType="twoGbMaxExtentFlat"\n'
        'RW 2048 FLAT "disk-flat.vmdk" 0\nRW 4096 ZERO\n'
    )
    plan, image = run_convert(source, tmp_path, verify="content")
    assert plan.disks[0].virtual_size == image.disks[0].virtual_size == 3 * MIB
    assert any("QEMU cannot read it" in line for line in image.evidence)
    sh("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image.disks[0].path, tmp_path / "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == (tmp_path / "disk-flat.vmdk").read_bytes() + bytes(2 * MIB)


def test_a_disk_that_qemu_dies_of_is_converted(tmp_path: Path) -> None:
    """An assertion of QEMU's fails on a snapshot that consists of ZERO extents alone."""
    (tmp_path / "parent-flat.vmdk").write_bytes(os.urandom(MIB))
    (tmp_path / "parent.vmdk").write_bytes(descriptor("monolithicFlat", 'RW 2048 FLAT "parent-flat.vmdk" 0'))
    source = tmp_path / "disk.vmdk"
    source.write_bytes(descriptor("vmfsSparse", "RW 2048 ZERO", cid="12345678", parent=("fffffffe", "parent.vmdk")))
    plan, image = run_convert(source, tmp_path, verify="content")
    assert plan.disks[0].virtual_size == image.disks[0].virtual_size == MIB
    assert any("QEMU cannot read it" in line for line in image.evidence)


def working(order: Order, *, kill_at: str = "") -> list[Event]:
    """A worker process with `order`, killed when it begins the step of that title; what it said."""
    with subprocess.Popen(
        [sys.executable, "-m", "hyper2kvmd.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write(order.model_dump_json() + "\ngo\nrecorded\n")
        worker.stdin.flush()
        heard = []
        for line in worker.stdout:
            heard.append(read_event(line))
            if isinstance(heard[-1], StepStarted) and heard[-1].title == kill_at:
                worker.kill()
    assert worker.returncode == (-signal.SIGKILL if kill_at else 0)
    return heard


def test_a_worker_killed_while_it_compares_does_not_copy_again(tmp_path: Path) -> None:
    noise, images = tmp_path / "noise", tmp_path / "images"
    noise.write_bytes(os.urandom(64 * MIB))
    source = make_vmdk(noise, tmp_path, "streamOptimized")
    migration = Migration(vmdk=(source,), vm_name="web01", verify="content")
    order = order_for(migration, tmp_path / "work")
    order = order.with_changes(output_dir=images, helper=default_helper())
    working(order, kill_at="Comparing every byte of disk 1/1")
    (folder,) = (tmp_path / "work").iterdir()
    copied = (folder / "disk1.qcow2").stat()

    heard = working(order)
    assert isinstance(heard[-1], Ended) and heard[-1].outcome == "succeeded", heard[-1]
    converting = [event for event in heard if isinstance(event, Progress) and event.title.startswith("Converting")]
    assert [(event.done, event.written) for event in converting] == [(64 * MIB, 0)]
    assert (images / "web01.qcow2").stat().st_ino == copied.st_ino
    assert {path.suffix for path in images.iterdir()} == {".qcow2", ".json", ".md", ".xml"}
    assert not [*(tmp_path / "work").iterdir()]
    sh("qemu-img", "compare", "-f", "raw", "-F", "qcow2", noise, images / "web01.qcow2")


def test_an_overlay_of_the_largest_disk(tmp_path: Path) -> None:
    qemu_img.create(tmp_path / "overlay.qcow2", LARGEST_DISK)
    assert qemu_img.virtual_size(tmp_path / "overlay.qcow2", "qcow2") == LARGEST_DISK
