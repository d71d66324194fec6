"""Disks of every format become the same disk; what a hostile or half-copied one asks for is refused before any tool."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from hyper2kvmd.disk.files import open_file
from hyper2kvmd.disk.qemu import qemu_img
from hyper2kvmd.disk.sources.block_map.crc32c import crc32c
from hyper2kvmd.disk.sources.block_map.vhdx import read_vhdx
from hyper2kvmd.errors import Failure, MigrationFailed
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import SourceFormat
from hyper2kvmd.progress import Event, Progress
from tests.support.converting import convert_planned, order_for, planned, prove_all, read_source, run_convert, snapshot
from tests.support.disks import sh
from tests.support.file_systems import file_system
from tests.support.foreign_disks import EXACT, MIB, QEMU_NAMES, SIZE, make, make_raw, poke, refused
from tests.support.service import until

KINDS: tuple[tuple[SourceFormat, tuple[str, ...]], ...] = (
    ("raw", ()),
    ("qcow2", ()),
    ("qcow2", ("-o", "compat=0.10")),
    ("qcow2", ("-o", "cluster_size=512")),
    ("qcow2", ("-o", "cluster_size=2M")),
    ("qcow2", ("-o", "extended_l2=on,cluster_size=128k")),
    ("qcow2", ("-o", "preallocation=metadata")),
    ("qcow2", ("-c",)),
    ("qcow2", ("-c", "-o", "compression_type=zstd")),
    ("vdi", ()),
    ("vdi", ("-o", "static=on")),
    ("vhd", ("-o", "force_size=on")),
    ("vhd", ("-o", "subformat=fixed,force_size=on")),
    ("vhdx", ()),
    ("vhdx", ("-o", "block_size=1M")),
    ("vhdx", ("-o", "subformat=fixed")),
)
ONE_OF_EACH: tuple[tuple[SourceFormat, tuple[str, ...]], ...] = (
    ("raw", ()),
    ("qcow2", ()),
    ("vdi", ()),
    ("vhd", EXACT),
    ("vhdx", ()),
)


@pytest.mark.parametrize(("fmt", "options"), KINDS, ids=str)
def test_every_kind_becomes_the_same_disk(fmt: str, options: tuple[str, ...], tmp_path: Path) -> None:
    raw = make_raw(tmp_path / "made.source")
    source = make(tmp_path, fmt, options, raw=raw)
    before = snapshot(source.parent)
    work = tmp_path / "work"
    work.mkdir()
    events: list[Event] = []
    plan, image = run_convert(source, work, events=events, verify="content")
    disk = plan.disks[0]
    assert (disk.format, disk.virtual_size) == (fmt, SIZE)
    sh("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, image.disks[0].path)
    assert qemu_img.check(image.disks[0].path) is None
    assert image.file_bytes * 0.95 <= disk.data_bytes <= image.file_bytes * 1.05
    assert any("the source read by QEMU" in line for line in image.evidence)
    assert any(f"all {SIZE} bytes read the same" in line for line in image.evidence)
    steps = [event for event in events if isinstance(event, Progress)]
    assert {event.title for event in steps if event.done == event.total} == {
        "Converting disk 1/1",
        "Comparing every byte of disk 1/1",
    }
    assert max(event.written for event in steps) >= image.file_bytes * 0.95
    assert snapshot(source.parent) == before
    own_note = set() if fmt == "qcow2" else {"disk1.qcow2.complete"}
    assert {path.name for path in work.iterdir()} == {"disk1.qcow2"} | own_note


@pytest.mark.parametrize("size", [512, 65536 + 512, MIB + 512, 8 * MIB])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(("fmt", "options"), ONE_OF_EACH, ids=str)
def test_small_full_and_empty_disks(fmt: str, options: tuple[str, ...], full: bool, size: int, tmp_path: Path) -> None:
    raw = make_raw(tmp_path / "made.source", size, ((0, size // MIB + 1),) if full else ())
    plan, image = run_convert(make(tmp_path, fmt, options, raw=raw), tmp_path, verify="content")
    disk = plan.disks[0]
    assert disk.virtual_size == image.disks[0].virtual_size == size
    assert disk.data_bytes == (size if full else 0)
    sh("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, image.disks[0].path)


@pytest.mark.parametrize(("fmt", "options"), ONE_OF_EACH, ids=str)
def test_raw_and_compressed_and_reserved_images(fmt: str, options: tuple[str, ...], tmp_path: Path) -> None:
    raw = make_raw(tmp_path / "made.source")
    source = make(tmp_path, fmt, options, raw=raw)
    asked: tuple[dict[str, Any], ...] = ({"out_format": "raw"}, {"compress": True}, {})
    for number, wanted in enumerate(asked):
        for preallocate in (False, True) if "compress" not in wanted else (False,):
            work = tmp_path / f"{number}{preallocate}"
            work.mkdir()
            _, image = run_convert(source, work, preallocate=preallocate, verify="content", **wanted)
            sh("qemu-img", "compare", "-f", "raw", "-F", image.format, raw, image.disks[0].path)
            assert (image.file_bytes >= SIZE) == preallocate


@pytest.mark.parametrize(
    ("fmt", "mebibytes"),
    [
        *((fmt, 100) for fmt in ("vdi", "vhd", "vhdx", "qcow2")),
        ("vdi", 1200),
        pytest.param("vhd", 1200, marks=pytest.mark.slow),
        pytest.param("vhdx", 1200, marks=pytest.mark.slow),
        pytest.param("qcow2", 1200, marks=pytest.mark.slow),
    ],
)
def test_stored_zeros_are_not_taken_for_data(fmt: str, mebibytes: int, tmp_path: Path) -> None:
    """Files that a careless copy filled: few samples must do for the large one."""
    raw = tmp_path / "made.source"
    pick = random.Random(3)  # noqa: S311
    with raw.open("wb") as file:
        file.truncate(mebibytes * MIB)
        for number in range(mebibytes // 4):
            file.seek(number * 4 * MIB + pick.randrange(16) * 65536)
            file.write(pick.randbytes(pick.randrange(1, 24) * 65536))
    fixed = ("-o", "subformat=fixed,force_size=on")
    options = {"vdi": ("-o", "static=on"), "vhd": fixed, "vhdx": ("-o", "subformat=fixed"), "qcow2": ("-S", "0")}[fmt]
    source = make(tmp_path, fmt, options, raw=raw)
    sh("cp", "--sparse=never", source, tmp_path / "full")
    (tmp_path / "full").rename(source)
    plan, image = run_convert(source, tmp_path)
    disk = plan.disks[0]
    assert image.file_bytes < source.stat().st_blocks * 512 / 2
    assert image.file_bytes * 0.95 <= disk.data_bytes <= image.file_bytes * 1.05


@pytest.mark.parametrize(
    ("fmt", "options", "size"),
    [("vhdx", "block_size=256M", 63 << 40), ("vhdx", "block_size=32M", 8 << 40), ("vhd", "force_size=on", 2040 << 30)],
)
def test_an_empty_thin_disk_costs_no_more_than_its_table(fmt: str, options: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / f"disk.{fmt}"
    sh("qemu-img", "create", "-q", "-f", QEMU_NAMES.get(fmt, fmt), "-o", options, path, str(size))
    events: list[Event] = []
    before = bytes_read()
    plan, image = run_convert(path, tmp_path, events=events)
    assert bytes_read() - before < 512 * MIB
    assert image.disks[0].virtual_size == plan.disks[0].virtual_size == size
    assert plan.disks[0].data_bytes == 0
    assert not [event for event in events if isinstance(event, Progress)], "a step without an amount has no progress"


def bytes_read() -> int:
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"])


def test_states_of_the_past_inside_a_qcow2_are_left_behind(tmp_path: Path) -> None:
    source = make(tmp_path, "qcow2")
    sh("qemu-img", "snapshot", "-c", "before", source)
    sh("qemu-io", "-f", "qcow2", "-c", "write -P 7 20M 64k", source)
    sh("qemu-img", "convert", "-f", "qcow2", "-O", "raw", source, tmp_path / "now.raw")
    plan, image = run_convert(source, tmp_path, verify="content")
    disk = plan.disks[0]
    assert "1 internal snapshots left behind" in disk.subformat
    sh("qemu-img", "compare", "-f", "raw", "-F", "qcow2", tmp_path / "now.raw", image.disks[0].path)


@pytest.mark.parametrize(("fmt", "options"), ONE_OF_EACH, ids=str)
@pytest.mark.parametrize("offset", [MIB + 70_001, 30 * MIB, SIZE - 1])
def test_one_wrong_byte_anywhere_fails_the_content_proof(
    fmt: str, options: tuple[str, ...], offset: int, tmp_path: Path
) -> None:
    plan, image = run_convert(make(tmp_path, fmt, options), tmp_path, out_format="raw")
    with image.disks[0].path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(MigrationFailed, match=f"offset {offset} "):
        prove_all(plan, image, tmp_path)


@pytest.mark.parametrize("fmt", ["qcow2", "vdi", "vhd", "vhdx"])
def test_a_full_disk_is_called_by_its_name(fmt: str, tmp_path: Path) -> None:
    source = make(tmp_path, fmt)
    with file_system(tmp_path, 16) as work, pytest.raises(MigrationFailed) as caught:
        run_convert(source, work)
    assert caught.value.code == "disk-full"


@pytest.mark.parametrize(("fmt", "options"), ONE_OF_EACH, ids=str)
def test_a_killed_conversion_is_done_again_and_complete(fmt: str, options: tuple[str, ...], tmp_path: Path) -> None:
    raw = make_raw(tmp_path / "made.source", 64 * MIB, ((0, 64),))
    source = make(tmp_path, fmt, options, raw=raw)
    work = tmp_path / "work"
    work.mkdir()
    argv = [sys.executable, "-m", "tests.support.convert_child", str(source), str(work), str(8 * MIB)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) > 8 * MIB:
                child.send_signal(signal.SIGKILL)
    target = work / "disk1.qcow2"
    assert 0 < target.stat().st_blocks * 512 < 60 * MIB
    until("no tool is left", lambda: str(target) not in sh("ps", "-eo", "args"))
    _, image = run_convert(source, work, verify="content")
    assert qemu_img.check(image.disks[0].path) is None
    sh("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, target)


# ---------------------------------------------------------------- what a file says of itself, and what is refused


@pytest.mark.parametrize("suffix", ["raw", "img", "dd", "bin", "RAW"])
@pytest.mark.parametrize("fmt", ["qcow2", "vdi", "vhd", "vhdx", "vmdk"])
def test_a_guest_cannot_choose_the_format_of_its_raw_disk(fmt: str, suffix: str, tmp_path: Path) -> None:
    disk = make(tmp_path, fmt).rename(tmp_path / f"disk.{suffix}")
    failure = refused(disk)
    assert failure.code == "source-format-differs"
    assert f".{fmt}" in failure.hint


@pytest.mark.parametrize("name", ["disk.qcow2", "disk.vdi", "disk.vhd", "disk.vpc", "disk.vhdx"])
def test_a_name_that_promises_what_is_not_there(name: str, tmp_path: Path) -> None:
    assert refused(make_raw(tmp_path / name)).code == "source-format-differs"


def test_content_decides_where_the_name_says_nothing(tmp_path: Path) -> None:
    for fmt in get_args(SourceFormat):
        disk = make(tmp_path, fmt).rename(tmp_path / f"{fmt}-disk")
        if fmt == "raw":
            assert refused(disk).code == "source-format-unclear"
        else:
            source = read_source(disk, tmp_path)
            assert source.format == fmt
            (warning,) = source.concerns
            assert f"read as {fmt}" in warning.message and "raw disk" in warning.hint
            assert read_source(disk.rename(tmp_path / f"named.{fmt}"), tmp_path).concerns == ()


@pytest.mark.parametrize("fmt", get_args(SourceFormat))
def test_only_regular_files_that_are_no_links(fmt: str, tmp_path: Path) -> None:
    (tmp_path / f"link.{fmt}").symlink_to(make(tmp_path, fmt))
    (tmp_path / f"folder.{fmt}").mkdir()
    os.mkfifo(tmp_path / f"pipe.{fmt}")
    for name in ("link", "folder", "pipe"):
        assert refused(tmp_path / f"{name}.{fmt}").code == "source-unsafe"
    assert refused(tmp_path / f"gone.{fmt}").code == "source-missing"


@pytest.mark.parametrize("fmt", ["raw", "qcow2", "vdi", "vhd", "vhdx"])
def test_a_source_that_was_swapped_since_the_plan_is_noticed(fmt: str, tmp_path: Path) -> None:
    source = make(tmp_path, fmt)
    plan = planned(source)
    (tmp_path / "copy").write_bytes(source.read_bytes())
    (tmp_path / "copy").rename(source)
    with pytest.raises(MigrationFailed) as caught:
        convert_planned(plan, order_for(Migration(vmdk=(source,), vm_name="web01"), tmp_path))
    assert caught.value.code == "source-changed"
    assert not (tmp_path / "disk1.qcow2").exists()


@pytest.mark.parametrize("size", [0, 511, 513])
def test_half_a_sector_is_no_raw_disk(size: int, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(size))
    assert refused(disk).code == "source-truncated"


def cut(path: Path, size: int) -> Path:
    os.truncate(path, size)
    return path


@pytest.mark.parametrize("fmt", ["qcow2", "vdi", "vhd", "vhdx"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.9])
def test_a_file_that_ends_too_early_is_told(fmt: str, share: float, tmp_path: Path) -> None:
    source = make(tmp_path, fmt)
    cut(source, max(100, int(source.stat().st_size * share)))
    with pytest.raises(Failure) as caught:
        read_source(source, tmp_path)
    assert caught.value.code in ("source-truncated", "source-corrupt")


def make_overlay(folder: Path) -> Path:
    base = make(folder, "qcow2")
    overlay = base.with_name("overlay.qcow2")
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", overlay)
    return overlay


def make_with_data_file(folder: Path) -> Path:
    path = folder / "disk.qcow2"
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={folder / 'data'},data_file_raw=on", path, "8M")
    return path


def make_with_data_file_name_only(folder: Path) -> Path:
    path = make_with_data_file(folder)
    poke(path, 72, bytes(8))
    return path


def make_dirty(folder: Path) -> Path:
    path = folder / "disk.qcow2"
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", path, "8M")
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write 0 64k", "-c", "abort", path], capture_output=True, check=False
    )
    return path


def qcow2_with(offset: int, data: bytes) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        path = make(folder, "qcow2")
        poke(path, offset, data)
        return path

    return made


def vdi_with(offset: int, data: bytes) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        path = make(folder, "vdi")
        poke(path, offset, data)
        return path

    return made


def make_undone_vhdx(folder: Path) -> Path:
    """As its writer leaves it that died: what the log holds was to be in the disk."""
    path = make(folder, "vhdx")
    for at in VHDX_HEADERS:
        poke(path, at + 48, b"\1" * 16)
        seal(path, at)
    return path


def seal(path: Path, at: int) -> None:
    """Give the header at byte `at` of a VHDX the checksum that its bytes have."""
    poke(path, at + 4, bytes(4))
    poke(path, at + 4, struct.pack("<I", crc32c(path.read_bytes()[at : at + 4096])))


def vhdx_item(path: Path, item: bytes) -> int:
    """Where the entry of a metadata item lies in the file; the region's table is the second one."""
    return path.read_bytes()[: 8 * MIB].index(item)


VHDX_HEADERS = (64 << 10, 128 << 10)
FILE_PARAMETERS = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
DISK_SIZE = bytes.fromhex("2442a52f1bcd7648b2115dbed83bf4b8")
SECTOR_SIZE = bytes.fromhex("1dbf41816fa90947ba47f233a8faab5f")


def vhdx_with(item: bytes, value: bytes, *, at: int = 0) -> Callable[[Path], Path]:
    """Another value in an item of the metadata, which no checksum covers."""

    def made(folder: Path) -> Path:
        path = make(folder, "vhdx")
        entry = vhdx_item(path, item)
        table = path.read_bytes()[: 8 * MIB].index(b"metadata")
        offset = struct.unpack_from("<I", path.read_bytes(), entry + 16)[0]
        poke(path, table + offset + at, value)
        return path

    return made


def make_vhdx_with_locator(folder: Path) -> Path:
    path = make(folder, "vhdx")
    poke(path, vhdx_item(path, bytes.fromhex("ab12cabee6b22345")), bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c"))
    return path


def make_vhdx_without_headers(folder: Path) -> Path:
    path = make(folder, "vhdx")
    for at in VHDX_HEADERS:
        poke(path, at + 8, bytes([path.read_bytes()[at + 8] ^ 0xFF]))
    return path


def vhdx_table(path: Path) -> int:
    """The byte of the block table."""
    file = open_file(path)
    try:
        return read_vhdx(file).table.offset
    finally:
        os.close(file.fd)


def vhdx_in_state(state: int) -> Callable[[Path], Path]:
    """With its first block in that state."""

    def made(folder: Path) -> Path:
        path = make(folder, "vhdx")
        at = vhdx_table(path)
        poke(path, at, bytes([path.read_bytes()[at] & ~7 | state]))
        return path

    return made


HOSTILE: tuple[tuple[Callable[[Path], Path], str], ...] = (
    (make_overlay, "source-has-parent"),
    (make_with_data_file, "source-has-parent"),
    (make_with_data_file_name_only, "source-has-parent"),
    (qcow2_with(32, struct.pack(">I", 2)), "source-encrypted"),
    (make_dirty, "source-unclean"),
    (qcow2_with(4, struct.pack(">I", 1)), "source-unsupported"),
    (qcow2_with(79, b"\x02"), "source-corrupt"),
    (qcow2_with(72, b"\x80"), "source-unsupported"),
    (qcow2_with(100, struct.pack(">I", 8)), "source-corrupt"),
    (qcow2_with(20, struct.pack(">I", 40)), "source-corrupt"),
    (qcow2_with(24, struct.pack(">Q", 0)), "source-corrupt"),
    (qcow2_with(24, struct.pack(">Q", 1 << 45)), "source-corrupt"),
    (qcow2_with(24, struct.pack(">Q", (64 << 40) + 512)), "source-unsupported"),
    (qcow2_with(36, struct.pack(">I", 1 << 31)), "source-corrupt"),
    (qcow2_with(40, struct.pack(">Q", 1 << 40)), "source-truncated"),
    (vdi_with(0x44, struct.pack("<I", 2)), "source-unsupported"),
    (vdi_with(0x4C, struct.pack("<I", 4)), "source-has-parent"),
    (vdi_with(0x4C, struct.pack("<I", 9)), "source-corrupt"),
    (vdi_with(0x1A8, b"\1" * 16), "source-has-parent"),
    (vdi_with(0x1B8, b"\1" * 16), "source-has-parent"),
    (vdi_with(0x178, struct.pack("<I", 1 << 16)), "source-unsupported"),
    (vdi_with(0x17C, struct.pack("<I", 512)), "source-unsupported"),
    (vdi_with(0x170, struct.pack("<Q", 1 << 45)), "source-corrupt"),
    (vdi_with(0x170, struct.pack("<Q", 1 << 60)), "source-unsupported"),
    (vdi_with(0x170, struct.pack("<Q", 0)), "source-corrupt"),
    (vdi_with(0x154, struct.pack("<I", 100)), "source-corrupt"),
    (vhdx_in_state(4), "source-corrupt"),
    (vhdx_in_state(7), "source-corrupt"),
    (make_undone_vhdx, "source-unclean"),
    (make_vhdx_with_locator, "source-has-parent"),
    (make_vhdx_without_headers, "source-corrupt"),
    (vhdx_with(FILE_PARAMETERS, b"\2", at=4), "source-has-parent"),
    (vhdx_with(FILE_PARAMETERS, struct.pack("<I", 3 << 20)), "source-corrupt"),
    (vhdx_with(DISK_SIZE, struct.pack("<Q", 1 << 60)), "source-unsupported"),
    (vhdx_with(DISK_SIZE, struct.pack("<Q", 1 << 45)), "source-corrupt"),
    (vhdx_with(SECTOR_SIZE, struct.pack("<I", 4096)), "source-unsupported"),
)


@pytest.mark.parametrize(("hostile", "code"), HOSTILE, ids=[str(number) for number in range(len(HOSTILE))])
def test_what_would_lead_a_tool_astray_is_refused_before_it_starts(
    hostile: Callable[[Path], Path], code: str, tmp_path: Path
) -> None:
    failure = refused(hostile(tmp_path))
    assert failure.code == code, failure


@pytest.mark.parametrize("fmt", ["vdi", "vhdx"])
def test_a_hole_that_many_entries_name_is_refused_on_entry(fmt: str, tmp_path: Path) -> None:
    """A hole is no data, and the file has room for all of them, but each block would be looked at."""
    source = make(tmp_path, fmt, {"vdi": (), "vhdx": ("-o", "block_size=1M")}[fmt])
    if fmt == "vdi":
        at, entry = struct.unpack_from("<I", source.read_bytes(), 0x154)[0], struct.pack("<I", 100)
    else:
        at, entry = vhdx_table(source), struct.pack("<Q", 100 * MIB | 6)
    os.truncate(source, 200 * MIB)
    poke(source, at, entry * 38)
    assert refused(source).code == "source-corrupt"


@pytest.mark.parametrize("fmt", ["qcow2", "vdi", "vhdx"])
def test_tables_that_name_one_block_for_all_are_refused(fmt: str, tmp_path: Path) -> None:
    """Such a disk would be endless: one of 64 TiB fits into a few MiB."""
    raw = make_raw(tmp_path / "made.source", 64 * MIB, ((0, 1),))
    options = {"vdi": (), "vhdx": ("-o", "block_size=1M"), "qcow2": ("-o", "cluster_size=2M")}[fmt]
    source = make(tmp_path, fmt, options, raw=raw)
    data = source.read_bytes()
    if fmt == "vdi":
        poke(source, struct.unpack_from("<I", data, 0x154)[0], bytes(4 * 64))
    elif fmt == "vhdx":
        entry = vhdx_table(source)
        poke(source, entry, data[entry : entry + 8] * 64)
    else:
        table = struct.unpack_from(">Q", data, struct.unpack_from(">Q", data, 40)[0])[0] & ~(1 << 63)
        poke(source, table, data[table : table + 8] * 32)
    with pytest.raises(Failure) as caught:
        read_source(source, tmp_path)
    assert caught.value.code == "source-corrupt"


def test_a_torn_header_of_a_vhdx_gives_way_to_the_sound_one(tmp_path: Path) -> None:
    """Only the sound header with the higher number counts: what a torn one says of a log does not."""
    path = make(tmp_path, "vhdx")
    numbers = [struct.unpack_from("<Q", path.read_bytes(), at + 8)[0] for at in VHDX_HEADERS]
    older = VHDX_HEADERS[numbers.index(min(numbers))]
    poke(path, older + 8, struct.pack("<Q", max(numbers) + 5))
    poke(path, older + 48, b"\1" * 16)
    assert read_source(path, tmp_path).virtual_size == SIZE
    seal(path, older)
    assert refused(path).code == "source-unclean"


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283
