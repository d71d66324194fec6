"""VHD files as Virtual PC, Hyper-V, XenServer, VirtualBox and Azure leave them, and damaged or dishonest ones."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from hyper2kvmd.disk.files import open_file
from hyper2kvmd.disk.reader import SourceReader
from hyper2kvmd.disk.sources.block_map.source import PARTIAL_LIMIT, open_block_map
from hyper2kvmd.errors import MigrationFailed
from tests.support.converting import read_source, run_convert
from tests.support.disks import sh
from tests.support.foreign_disks import EXACT, MIB, SIZE, make, make_raw, poke, refused

FIXED = ("-o", "subformat=fixed,force_size=on")
CREATOR, CURRENT_SIZE, GEOMETRY, KIND, CHECKSUM = 28, 48, 56, 60, 64
HEADER, TABLE, ENTRIES, BLOCK, HEADER_CHECKSUM, PARENT = 512, 512 + 16, 512 + 28, 512 + 32, 512 + 36, 512 + 64
BLOCK_BYTES = 2 * MIB
HEADS, SECTORS = 4, 17
CYLINDERS = SIZE // 512 // (HEADS * SECTORS)
"""As the specification computes them for a disk of this size; the last cylinder is not whole."""


def checksum(data: bytes, at: int) -> bytes:
    return struct.pack(">I", ~sum(data[:at] + data[at + 4 :]) & 0xFFFFFFFF)


def seal(path: Path, at: int, length: int = 512, place: int = CHECKSUM) -> None:
    """Give the footer or header at byte `at` the checksum that its bytes have."""
    data = path.read_bytes()[at : at + length]
    poke(path, at + place, checksum(data, place))


def footers(path: Path) -> list[int]:
    data = path.read_bytes()
    return [at for at in (0, len(data) - 512) if data[at:].startswith(b"conectix")]


def in_footers(path: Path, offset: int, value: bytes) -> Path:
    """Another value in every footer, with its checksum."""
    for at in footers(path):
        poke(path, at + offset, value)
        seal(path, at)
    return path


def in_header(path: Path, offset: int, value: bytes) -> Path:
    poke(path, offset, value)
    seal(path, HEADER, 1024, HEADER_CHECKSUM - HEADER)
    return path


def table(path: Path) -> list[int]:
    data = path.read_bytes()
    (at,), (count,) = struct.unpack_from(">Q", data, TABLE), struct.unpack_from(">I", data, ENTRIES)
    return list(struct.unpack_from(f">{count}I", data, at))


def bitmap(path: Path, number: int) -> int:
    """The byte at which the bitmap of a block lies."""
    return table(path)[number] * 512


def converted(path: Path, tmp_path: Path) -> bytes:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    _, image = run_convert(path, work, out_format="raw", verify="content")
    return image.disks[0].path.read_bytes()


# ---------------------------------------------------------------- the size


def chs(path: Path) -> int:
    cylinders, heads, sectors = struct.unpack_from(">HBB", path.read_bytes(), path.stat().st_size - 512 + GEOMETRY)
    return int(cylinders * heads * sectors * 512)


@pytest.mark.parametrize("options", [EXACT, FIXED], ids=["dynamic", "fixed"])
@pytest.mark.parametrize(
    ("creator", "by_geometry"),
    [(b"vpc ", True), (b"qemu", True)]
    + [
        (name, False)
        for name in (b"qem2", b"win ", b"d2v ", b"tap\0", b"CTXS", b"vs  ", b"vbox", b"wa\0\0", b"\0\0\0\0")
    ],
)
def test_the_creator_decides_whether_the_geometry_counts(
    creator: bytes, by_geometry: bool, options: tuple[str, ...], tmp_path: Path
) -> None:
    """Only Virtual PC and QEMU's imitation of it show their guests less than the size."""
    raw = make_raw(tmp_path / "made.source")
    path = in_footers(make(tmp_path, "vhd", options, raw=raw), CREATOR, creator)
    in_footers(path, GEOMETRY, struct.pack(">HBB", CYLINDERS, HEADS, SECTORS))
    geometry = chs(path)
    assert geometry < SIZE
    size = geometry if by_geometry else SIZE
    assert converted(path, tmp_path) == raw.read_bytes()[:size]
    said = read_source(path, tmp_path).subformat
    assert (f"{geometry} bytes by its geometry instead of {SIZE}" in said) == by_geometry


def test_a_disk_beyond_the_largest_geometry_has_its_full_size(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhd"
    sh("qemu-img", "create", "-q", "-f", "vpc", "-o", "force_size=on", path, "500G")
    assert chs(path) == 65535 * 16 * 255 * 512
    in_footers(path, CREATOR, b"vpc ")
    assert read_source(path, tmp_path).virtual_size == 500 << 30


def test_a_size_that_qemu_rounds_up(tmp_path: Path) -> None:
    """Without force_size qemu-img makes a whole number of cylinders: geometry and size agree."""
    path = make(tmp_path, "vhd")
    disk = read_source(path, tmp_path)
    assert disk.virtual_size == chs(path) > SIZE
    assert disk.subformat == "dynamic"


# ---------------------------------------------------------------- footers


def without_footer(path: Path) -> Path:
    os.truncate(path, path.stat().st_size - 512)
    return path


def test_a_lost_footer_is_replaced_by_its_copy(tmp_path: Path) -> None:
    raw = make_raw(tmp_path / "made.source")
    path = make(tmp_path, "vhd", EXACT, raw=raw)
    assert converted(without_footer(path), tmp_path) == raw.read_bytes()


def test_a_damaged_copy_gives_way_to_the_footer(tmp_path: Path) -> None:
    raw = make_raw(tmp_path / "made.source")
    path = make(tmp_path, "vhd", EXACT, raw=raw)
    poke(path, 100, b"scribble")
    assert converted(path, tmp_path) == raw.read_bytes()
    poke(path, 0, bytes(512))
    assert converted(path, tmp_path) == raw.read_bytes()


@pytest.mark.parametrize("options", [EXACT, FIXED], ids=["dynamic", "fixed"])
def test_a_footer_of_511_bytes(options: tuple[str, ...], tmp_path: Path) -> None:
    """As of Virtual PC before 2004."""
    raw = make_raw(tmp_path / "made.source")
    path = make(tmp_path, "vhd", options, raw=raw)
    os.truncate(path, path.stat().st_size - 1)
    assert converted(path, tmp_path) == raw.read_bytes()


def test_a_fixed_vhd_without_its_footer_is_incomplete(tmp_path: Path) -> None:
    assert refused(without_footer(make(tmp_path, "vhd", FIXED))).code == "source-format-differs"


def test_a_fixed_vhd_that_lacks_sectors(tmp_path: Path) -> None:
    path = make(tmp_path, "vhd", FIXED)
    footer = path.read_bytes()[-512:]
    path.write_bytes(path.read_bytes()[: 20 * MIB] + footer)
    assert refused(path).code == "source-truncated"


def test_wrong_checksums(tmp_path: Path) -> None:
    fixed = make(tmp_path, "vhd", FIXED)
    poke(fixed, fixed.stat().st_size - 512 + CHECKSUM, b"\1\2\3\4")
    assert refused(fixed).code == "source-corrupt"
    dynamic = make(tmp_path, "vhd", EXACT)
    for at in footers(dynamic):
        poke(dynamic, at + CHECKSUM, b"\1\2\3\4")
    assert "checksum" in refused(dynamic).message


def test_footers_that_contradict_each_other(tmp_path: Path) -> None:
    path = make(tmp_path, "vhd", EXACT)
    poke(path, CURRENT_SIZE, struct.pack(">Q", 20 * MIB))
    seal(path, 0)
    assert refused(path).code == "source-corrupt"


# ---------------------------------------------------------------- whose bytes they are


def footer(tmp_path: Path) -> bytes:
    return make(tmp_path, "vhd", FIXED).read_bytes()[-512:]


@pytest.mark.parametrize("suffix", ["raw", "img", "dd", "bin"])
def test_a_footer_at_the_end_of_a_raw_disk_is_not_obeyed(suffix: str, tmp_path: Path) -> None:
    disk = make_raw(tmp_path / f"disk.{suffix}")
    poke(disk, SIZE - 512, footer(tmp_path))
    assert refused(disk).code == "source-format-differs"


def test_a_footer_at_the_end_of_a_file_without_a_suffix_decides_nothing(tmp_path: Path) -> None:
    disk = make_raw(tmp_path / "disk")
    poke(disk, SIZE - 512, footer(tmp_path))
    failure = refused(disk)
    assert failure.code == "source-format-unclear"
    assert ".raw" in failure.hint and ".vhd" in failure.hint


@pytest.mark.parametrize("fmt", ["qcow2", "vdi", "vhdx", "vmdk"])
def test_a_guest_of_another_image_cannot_make_it_a_vhd(fmt: str, tmp_path: Path) -> None:
    """The last bytes of most images are the guest's."""
    path = make(tmp_path, fmt)
    with path.open("ab") as file:
        file.write(footer(tmp_path))
    assert read_source(path, tmp_path).format == fmt


@pytest.mark.parametrize("fmt", ["qcow2", "vdi", "vhdx", "vmdk", "vhd"])
def test_a_guest_cannot_choose_how_its_fixed_vhd_is_read(fmt: str, tmp_path: Path) -> None:
    """Its first sectors are the file's: here they are another image, for QEMU a dynamic VHD of other content."""
    inner = make(tmp_path, fmt, EXACT if fmt == "vhd" else ())
    raw = make_raw(tmp_path / "made.outer")
    poke(raw, 0, inner.read_bytes()[: 30 * MIB])
    outer = make(tmp_path, "vhd", FIXED, raw=raw)
    assert read_source(outer, tmp_path).subformat == "fixed"
    assert converted(outer, tmp_path) == raw.read_bytes()
    bare = outer.rename(tmp_path / "bare")
    if fmt == "vhd":
        assert read_source(bare, tmp_path).subformat == "fixed"
    else:
        assert refused(bare).code == "source-format-unclear"


# ---------------------------------------------------------------- blocks


@pytest.mark.parametrize("block", [512 << 10, 1 * MIB, 4 * MIB])
def test_blocks_of_another_size(block: int, tmp_path: Path) -> None:
    raw = make_raw(tmp_path / "made.source")
    path = with_blocks_of(block, raw, make(tmp_path, "vhd", EXACT, raw=raw))
    sh("qemu-img", "compare", "-f", "raw", "-F", "vpc", raw, path)
    assert converted(path, tmp_path) == raw.read_bytes()


def with_blocks_of(block: int, raw: Path, path: Path) -> Path:
    """The disk anew, in the order of the file reversed; qemu-img makes blocks of 2 MiB only."""
    data, old = raw.read_bytes(), path.read_bytes()
    count, padding = -(-SIZE // block), -(-block // 4096 // 512) * 512
    entries, blocks = [0xFFFFFFFF] * count, bytearray()
    start = 4096
    for number in reversed(range(count)):
        content = data[number * block : (number + 1) * block].ljust(block, b"\0")
        if any(content):
            entries[number] = (start + len(blocks)) // 512
            blocks += b"\xff" * padding + content
    header = bytearray(old[512:1536])
    struct.pack_into(">QIII", header, 16, 1536, 0x10000, count, block)
    header[36:40] = checksum(bytes(header), 36)
    front = old[:512] + bytes(header) + struct.pack(f">{count}I", *entries)
    path.write_bytes(front.ljust(start, b"\0") + bytes(blocks) + old[:512])
    return path


def test_sectors_that_were_never_written_are_zeros(tmp_path: Path) -> None:
    """Whatever lies there in the file: the bitmap has no bit for them."""
    raw = make_raw(tmp_path / "made.source")
    path = make(tmp_path, "vhd", EXACT, raw=raw)
    expected = bytearray(raw.read_bytes())
    poke(path, bitmap(path, 0), b"\x00\x0f")
    expected[: 12 * 512] = bytes(12 * 512)
    last = (SIZE - 1) // BLOCK_BYTES
    left = (SIZE - last * BLOCK_BYTES) // 512
    poke(path, bitmap(path, last) + left // 8, bytes([0xFF << (8 - left % 8) & 0xFF]) + bytes(100))  # behind the end
    assert converted(path, tmp_path) == bytes(expected)
    poke(path, bitmap(path, 0), bytes(512))
    expected[:BLOCK_BYTES] = bytes(BLOCK_BYTES)
    assert converted(path, tmp_path) == bytes(expected)


@pytest.mark.parametrize("block", [64 << 10, BLOCK_BYTES, 16 * MIB])
def test_alternating_sectors_make_no_more_runs_than_blocks(block: int, tmp_path: Path) -> None:
    """A run for each written sector would be two billion for a disk of 2 TiB."""
    raw = make_raw(tmp_path / "made.source")
    path = with_blocks_of(block, raw, make(tmp_path, "vhd", EXACT, raw=raw))
    expected = bytearray(raw.read_bytes())
    for number, entry in enumerate(table(path)):
        if entry != 0xFFFFFFFF:
            poke(path, entry * 512, b"\x55" * (block // 4096))
            for sector in range(number * block, min((number + 1) * block, SIZE), 1024):
                expected[sector : sector + 512] = bytes(512)
    stored = sum(entry != 0xFFFFFFFF for entry in table(path))
    file = open_file(path)
    try:
        source = open_block_map(file, "vhd")
        assert len(list(source.runs(0, SIZE))) <= stored * max(1, block // PARTIAL_LIMIT)
        reader = SourceReader(source)
        assert reader.read(1536, 3000) == expected[1536:4536]
    finally:
        os.close(file.fd)
    assert converted(path, tmp_path) == bytes(expected)


def test_qemu_is_asked_unless_it_would_read_other_bytes(tmp_path: Path) -> None:
    def witness(path: Path) -> str:
        _, image = run_convert(path, tmp_path)
        return next(line for line in image.evidence if "samples" in line)

    for options in (EXACT, FIXED):
        assert "the source read by QEMU" in witness(make(tmp_path, "vhd", options))
    partial = make(tmp_path, "vhd", EXACT)
    poke(partial, bitmap(partial, 1), b"\x7f")
    assert "the same code" in witness(partial)


def test_a_block_beyond_the_end_of_the_file(tmp_path: Path) -> None:
    path = make(tmp_path, "vhd", EXACT)
    (at,) = struct.unpack_from(">Q", path.read_bytes(), TABLE)
    poke(path, at, struct.pack(">I", path.stat().st_size // 512))
    with pytest.raises(MigrationFailed) as caught:
        read_source(path, tmp_path)
    assert caught.value.code == "source-truncated"


def many_names_for_one_block(path: Path) -> Path:
    (at,) = struct.unpack_from(">Q", path.read_bytes(), TABLE)
    poke(path, at, path.read_bytes()[at : at + 4] * 19)
    return path


@pytest.mark.parametrize("bits", [bytes(512), b"\x55" * 512], ids=["unset", "every other one"])
def test_many_names_for_one_block_are_refused_before_its_bitmap_counts(bits: bytes, tmp_path: Path) -> None:
    """Also if the file has room for all of them: unset sectors are no data, but each block would be looked at."""
    raw = make_raw(tmp_path / "made.source", SIZE, ((0, 2),))
    path = make(tmp_path, "vhd", EXACT, raw=raw)
    poke(path, bitmap(path, 0), bits)
    end = path.read_bytes()[-512:]
    os.truncate(path, path.stat().st_size + 64 * MIB)
    poke(path, path.stat().st_size - 512, end)
    failure = refused(many_names_for_one_block(path))
    assert failure.code == "source-corrupt"
    assert "block 1 of the disk" in failure.message


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (many_names_for_one_block, "source-corrupt"),
        (lambda path: in_footers(path, KIND, struct.pack(">I", 7)), "source-corrupt"),
        (lambda path: in_footers(path, CURRENT_SIZE, struct.pack(">Q", 0)), "source-corrupt"),
        (lambda path: in_footers(path, CURRENT_SIZE, struct.pack(">Q", 1 << 60)), "source-unsupported"),
        (lambda path: in_footers(path, CURRENT_SIZE, struct.pack(">Q", 1 << 40)), "source-corrupt"),
        (lambda path: in_footers(path, 12, struct.pack(">I", 0x20000)), "source-unsupported"),
        (lambda path: in_footers(path, 16, struct.pack(">Q", 1 << 40)), "source-truncated"),
        (lambda path: in_header(path, HEADER, b"CXSPARSE"), "source-corrupt"),
        (lambda path: in_header(path, HEADER + 24, struct.pack(">I", 0x20000)), "source-unsupported"),
        (lambda path: in_header(path, ENTRIES, struct.pack(">I", 3)), "source-corrupt"),
        (lambda path: in_header(path, TABLE, struct.pack(">Q", 1 << 40)), "source-truncated"),
        (lambda path: in_header(path, TABLE, struct.pack(">Q", 100)), "source-corrupt"),
        (lambda path: in_header(path, BLOCK, struct.pack(">I", 3 << 20)), "source-unsupported"),
        (lambda path: in_header(path, BLOCK, struct.pack(">I", 512)), "source-unsupported"),
    ],
)
def test_damaged_and_hostile_ones(damage: Callable[[Path], Path], code: str, tmp_path: Path) -> None:
    raw = make_raw(tmp_path / "made.source", SIZE, ((0, 2),))
    path = damage(make(tmp_path, "vhd", EXACT, raw=raw))
    with pytest.raises(MigrationFailed) as caught:
        read_source(path, tmp_path)
    assert caught.value.code == code, caught.value


@pytest.mark.parametrize("suffix", ["vhd", "avhd"])
def test_a_differencing_disk_is_refused_with_its_parents_name(suffix: str, tmp_path: Path) -> None:
    path = in_footers(make(tmp_path, "vhd", EXACT), KIND, struct.pack(">I", 4))
    in_header(path, PARENT, "Server 2008.vhd".encode("utf-16-be"))
    failure = refused(path.rename(tmp_path / f"child.{suffix}"))
    assert failure.code == "source-has-parent"
    assert "'Server 2008.vhd'" in failure.message
    assert "Merge-VHD" in failure.hint
