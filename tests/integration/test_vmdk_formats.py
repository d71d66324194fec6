"""VMDKs as VMware writes them, made by hand and read as qemu-img reads them; and how damaged ones are told apart."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from hyper2kvmd.errors import Failure
from tests.support.vmdk import full, seen_by_qemu
from tests.support.vmdk_images import Grains, content, cowd, descriptor, expected, hosted, sesparse, stream, vmdk_source

CAPACITY = 128 * 600 + 3
"""Sectors: two grain tables, the last grain three sectors long."""
DISK: Grains = {
    0: full(65536),
    1: b"text" * 16384,
    2: bytes(65536),
    7: full(65536)[::-1],
    511: b"a" * 65536,
    512: b"b" * 65536,
    600: b"c" * 65536,
}


def failed(path: Path) -> Failure:
    with pytest.raises(Failure) as caught:
        content(path)
    assert "\n" not in str(caught.value)
    return caught.value


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def patched_file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# ---------------------------------------------------------------- whole


def test_a_stream_as_vsphere_exports_it(tmp_path: Path) -> None:
    path = patched_file(tmp_path / "disk.vmdk", stream(DISK, CAPACITY))
    assert content(path) == expected(DISK, CAPACITY * 512, 65536) == seen_by_qemu(path)
    with vmdk_source(path) as source:
        assert source.subformat == "streamOptimized"
        assert source.data_bytes == 6 * 65536 + 3 * 512
        assert all(run.packed and run.length <= 65536 for run in source.runs(0, source.virtual_size))


def test_a_last_grain_that_holds_only_what_the_disk_needs(tmp_path: Path) -> None:
    grains = {**DISK, 600: b"c" * 3 * 512}
    path = patched_file(tmp_path / "disk.vmdk", stream(grains, CAPACITY))
    assert content(path) == expected(grains, CAPACITY * 512, 65536)


def test_bytes_behind_the_end_of_a_stream_do_no_harm(tmp_path: Path) -> None:
    path = patched_file(tmp_path / "disk.vmdk", stream(DISK, CAPACITY) + bytes(700))
    assert content(path) == expected(DISK, CAPACITY * 512, 65536)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("grain", "per_table"), [(8, 512), (16, 64), (128, 512), (2048, 512), (16384, 512)])
def test_grains_and_tables_of_any_size(grain: int, per_table: int, packed: bool, tmp_path: Path) -> None:
    size = grain * 512
    capacity = grain * 70 + 5
    grains: Grains = {0: full(size), 1: b"x" * size, 3: None, 5: full(size)[::-1], 69: b"y" * size, 70: b"z" * 5 * 512}
    if packed:
        grains[70] = (b"z" * 5 * 512).ljust(size, b"\0")
    path = hosted(grains, capacity, grain=grain, per_table=per_table, packed=packed).write(tmp_path / "disk.vmdk")
    assert content(path) == expected(grains, capacity * 512, size) == seen_by_qemu(path)


def test_compressed_grains_without_markers(tmp_path: Path) -> None:
    path = hosted(DISK, CAPACITY, packed=True, marked=False).write(tmp_path / "disk.vmdk")
    assert content(path) == expected(DISK, CAPACITY * 512, 65536)


def test_grains_in_any_order(tmp_path: Path) -> None:
    """The tables say where a grain is; neighbours in the file need not be neighbours on the disk."""
    image = hosted(DISK, CAPACITY)
    entries = list(struct.unpack_from("<512I", image.data, image.tables))
    data = bytearray(image.data)
    one, other = entries[0] * 512, entries[7] * 512
    data[one : one + 65536], data[other : other + 65536] = data[other : other + 65536], data[one : one + 65536]
    entries[0], entries[7] = entries[7], entries[0]
    struct.pack_into("<512I", data, image.tables, *entries)
    path = patched_file(tmp_path / "disk.vmdk", bytes(data))
    assert content(path) == expected(DISK, CAPACITY * 512, 65536) == seen_by_qemu(path)


@pytest.mark.parametrize("grain", [1, 8, 128])
def test_an_esx_snapshot_disk(grain: int, tmp_path: Path) -> None:
    size = grain * 512
    capacity = grain * 5000 + min(grain - 1, 3)
    grains: Grains = {0: full(size), 1: b"x" * size, 4095: b"y" * size, 4096: b"z" * size}
    (tmp_path / "disk-delta.vmdk").write_bytes(cowd(grains, capacity, grain=grain))
    text = descriptor("vmfsSparse", f'RW {capacity} VMFSSPARSE "disk-delta.vmdk"')
    path = patched_file(tmp_path / "disk.vmdk", text)
    assert content(path) == expected(grains, capacity * 512, size) == seen_by_qemu(path)


def sesparse_disk(folder: Path, grains: Grains, capacity: int, **options: object) -> Path:
    (folder / "disk-sesparse.vmdk").write_bytes(sesparse(grains, capacity, **options))  # type: ignore[arg-type]
    return patched_file(folder / "disk.vmdk", descriptor("seSparse", f'RW {capacity} SESPARSE "disk-sesparse.vmdk"'))


def test_an_sesparse_disk(tmp_path: Path) -> None:
    capacity = 8 * 9000
    grains: Grains = {number: bytes([number % 251 + 1]) * 4096 for number in range(10, 8200, 2)}
    grains |= {0: full(4096), 3: None, 4096: None}
    path = sesparse_disk(tmp_path, grains, capacity, unmapped=12)
    grains[12] = None
    assert content(path) == expected(grains, capacity * 512, 4096) == seen_by_qemu(path)


def test_an_sesparse_disk_with_a_journal_is_refused(tmp_path: Path) -> None:
    assert failed(sesparse_disk(tmp_path, {0: full(4096)}, 8000, dirty=True)).code == "source-unclean"


# ---------------------------------------------------------------- damaged


def test_a_stream_cut_anywhere_is_told_from_a_whole_one(tmp_path: Path) -> None:
    data = stream(DISK, CAPACITY)
    path = tmp_path / "disk.vmdk"
    for length in [*range(11 * 512, len(data), 4096 - 7), len(data) - 1, len(data) - 512, len(data) - 1024]:
        path.write_bytes(data[:length])
        failure = failed(path)
        assert failure.code == "source-truncated", length
        assert str(length) in failure.message or "stops at byte" in failure.message


def test_a_stream_that_goes_on_as_zeros_was_cut(tmp_path: Path) -> None:
    data = stream(DISK, CAPACITY)
    path = patched_file(tmp_path / "disk.vmdk", data[: len(data) // 2 // 512 * 512].ljust(len(data), b"\0"))
    assert failed(path).code in ("source-truncated", "source-corrupt")


@pytest.mark.parametrize("overhead", [0, 1 << 20, 1 << 60, (1 << 64) - 1])
def test_a_footer_is_found_or_missed_whatever_the_header_says_of_its_place(overhead: int, tmp_path: Path) -> None:
    data = patched(stream(DISK, CAPACITY), 64, struct.pack("<Q", overhead))
    path = patched_file(tmp_path / "disk.vmdk", data)
    if overhead == 0:
        assert content(path) == expected(DISK, CAPACITY * 512, 65536)
    else:
        assert failed(path).code == "source-truncated"


def test_a_footer_that_contradicts_the_header_is_corrupt(tmp_path: Path) -> None:
    data = stream(DISK, CAPACITY)
    changed = patched(data, len(data) - 1024 + 12, struct.pack("<Q", CAPACITY - 3))
    assert failed(patched_file(tmp_path / "disk.vmdk", changed)).code == "source-corrupt"


@pytest.mark.parametrize("entry", [4 << 60, 15 << 60, 5])
def test_an_sesparse_entry_of_no_known_kind_is_corrupt(entry: int, tmp_path: Path) -> None:
    path = sesparse_disk(tmp_path, {0: full(4096)}, 8000)
    data = (tmp_path / "disk-sesparse.vmdk").read_bytes()
    at = data.index(struct.pack("<Q", 3 << 60))
    patched_file(tmp_path / "disk-sesparse.vmdk", patched(data, at, struct.pack("<Q", entry)))
    failure = failed(path)
    assert failure.code == "source-corrupt" and f"byte {at} " in failure.message


def test_a_descriptor_inside_names_one_extent(tmp_path: Path) -> None:
    data = hosted(DISK, CAPACITY).data
    at = data.index(b"RW ")
    extra = f'RW {CAPACITY} SPARSE "own.vmdk"\nRW 8 SPARSE "two.vmdk"\n'.encode()
    assert failed(patched_file(tmp_path / "disk.vmdk", patched(data, at, extra))).code == "source-not-vmdk"


@pytest.mark.parametrize("make", [stream, lambda *disk: hosted(*disk, packed=True).data])
def test_a_compressed_grain_is_never_read_wrongly(make: Callable[[Grains, int], bytes], tmp_path: Path) -> None:
    """A size that is too large and the padding bits behind the last block do not matter; anything else is seen."""
    text = b"some text " * 6553 + b"123456"
    data = make({0: text}, 128)
    size = len(zlib.compress(text))
    first = data.index(struct.pack("<QI", 0, size))
    path = tmp_path / "disk.vmdk"
    for at in range(first, first + 12 + size):
        path.write_bytes(patched(data, at, bytes([data[at] ^ 0x40])))
        if at in (first + 8, first + 12 + size - 5):
            assert content(path) == text
            continue
        failure = failed(path)
        assert failure.code in ("source-corrupt", "source-truncated"), at
        assert str(first) in failure.message


@pytest.mark.parametrize("body", [bytes(65535), bytes(65537), bytes(300 << 20)])
def test_a_grain_of_the_wrong_length_is_corrupt(body: bytes, tmp_path: Path) -> None:
    packed = zlib.compress(body)
    image = hosted({0: full(65536)}, 1280, packed=True)
    record = struct.pack("<QI", 0, min(len(packed), 131072)) + packed
    path = patched_file(tmp_path / "disk.vmdk", image.data[: image.first_grain] + record)
    assert failed(path).code == "source-corrupt"


@pytest.mark.parametrize("packed", [False, True])
def test_a_sparse_file_cut_short(packed: bool, tmp_path: Path) -> None:
    image = hosted(DISK, CAPACITY, packed=packed)
    for length in (len(image.data) - 65536, image.first_grain + 100, image.tables + 100, image.redundant + 3):
        path = patched_file(tmp_path / "disk.vmdk", image.data[:length])
        assert failed(path).code == "source-truncated"


def test_the_redundant_tables_stand_in_for_damaged_ones(tmp_path: Path) -> None:
    image = hosted(DISK, CAPACITY)
    for at, new in [
        (image.directory, b"\xff\xff\xff\x7f"),
        (image.directory, b"\x01\0\0\0" * 2),
        (image.directory, bytes(8)),
        (image.tables, b"\xff\xff\xff\xff"),
        (image.tables, b"\x02\0\0\0"),
        (56, struct.pack("<Q", 1 << 40)),
    ]:
        path = patched_file(tmp_path / "disk.vmdk", patched(image.data, at, new))
        assert content(path) == expected(DISK, CAPACITY * 512, 65536)
        without = struct.pack("<I", 0x5)
        path.write_bytes(patched(patched(image.data, at, new), 8, without))
        if new != bytes(8):
            assert failed(path).code == "source-corrupt"


@pytest.mark.parametrize(
    ("at", "new", "code"),
    [
        (4, struct.pack("<I", 4), "source-not-vmdk"),
        (12, struct.pack("<Q", 0), "source-not-vmdk"),
        (12, struct.pack("<Q", (64 << 31) + 1), "source-unsupported"),
        (12, struct.pack("<Q", (1 << 64) - 1), "source-unsupported"),
        (20, struct.pack("<Q", 0), "source-not-vmdk"),
        (20, struct.pack("<Q", 7), "source-not-vmdk"),
        (20, struct.pack("<Q", 1 << 63), "source-not-vmdk"),
        (28, struct.pack("<Q", (1 << 64) - 1), "source-not-vmdk"),
        (36, struct.pack("<Q", (1 << 64) - 1), "source-not-vmdk"),
        (44, struct.pack("<I", 0), "source-not-vmdk"),
        (44, struct.pack("<I", 1 << 31), "source-not-vmdk"),
        (56, struct.pack("<Q", 0), "source-corrupt"),
        (56, struct.pack("<Q", 1 << 62), "source-corrupt"),
        (73, b"\r\n \r", "source-not-vmdk"),
        (77, b"\x02\0", "source-unsupported"),
        (77, b"\x01\0", "source-unsupported"),
    ],
)
def test_a_header_that_lies(at: int, new: bytes, code: str, tmp_path: Path) -> None:
    image = hosted(DISK, CAPACITY)
    data = patched(patched(image.data, 8, struct.pack("<I", 0x5)), at, new)
    assert failed(patched_file(tmp_path / "disk.vmdk", data)).code == code


def test_tables_that_map_one_grain_many_times_are_corrupt(tmp_path: Path) -> None:
    image = hosted(dict.fromkeys(range(4), b"x" * 65536), 128 * 512)
    entry = struct.unpack_from("<I", image.data, image.tables)[0]
    data = patched(image.data, image.tables, struct.pack("<512I", *[entry] * 512))
    failure = failed(patched_file(tmp_path / "disk.vmdk", patched(data, 8, struct.pack("<I", 0x5))))
    assert failure.code == "source-corrupt" and "overlap" in failure.message


@pytest.mark.parametrize("grain", [b"x" * 65536, None])
def test_a_directory_that_names_one_table_many_times_is_corrupt(grain: bytes | None, tmp_path: Path) -> None:
    image, tables = hosted({0: grain}, 128 * 512), 4096
    directory = len(image.data) // 512
    data = patched(image.data, 8, struct.pack("<IQ", 0x5, 128 * 512 * tables))
    data = patched(data, 56, struct.pack("<Q", directory)) + struct.pack("<I", image.tables // 512) * tables
    failure = failed(patched_file(tmp_path / "disk.vmdk", data))
    assert failure.code == "source-corrupt" and "overlap" in failure.message


def test_extents_must_be_as_long_as_the_descriptor_says(tmp_path: Path) -> None:
    hosted(DISK, CAPACITY, alone=False).write(tmp_path / "disk-s001.vmdk")
    for sectors, code in ((CAPACITY, None), (CAPACITY - 1, "source-corrupt"), (CAPACITY + 1, "source-corrupt")):
        path = tmp_path / "disk.vmdk"
        path.write_bytes(descriptor("twoGbMaxExtentSparse", f'RW {sectors} SPARSE "disk-s001.vmdk"'))
        if code is None:
            assert content(path) == expected(DISK, CAPACITY * 512, 65536)
        else:
            assert failed(path).code == code


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (['RW 99999999999999999999 FLAT "flat" 0', 'RW 8 FLAT "flat" 0'], "source-not-vmdk"),
        ([f'RW {"9" * 5000} FLAT "flat" 0'], "source-not-vmdk"),
        (['RW 999999999999999999 FLAT "flat" 0'], "source-unsupported"),
        (['RW 8 FLAT "flat" 999999999999999999'], "source-truncated"),
        (['NOACCESS 8 FLAT "flat" 0'], "source-unsupported"),
        (["RW 0 ZERO"], "source-not-vmdk"),
        (['RW 8 FLAT "fl\x1bat" 0'], "source-unsafe"),
        (['RW 8 SPARSE "s"', 'RW 8 SPARSE "s"'], "source-corrupt"),
        (['RW 8 SPARSE "flat"'], "source-not-vmdk"),
        (['RW 8 VMFSSPARSE "flat"'], "source-not-vmdk"),
        (['RW 8 SESPARSE "flat"'], "source-not-vmdk"),
    ],
)
def test_extent_lines_that_lie(lines: list[str], code: str, tmp_path: Path) -> None:
    (tmp_path / "flat").write_bytes(bytes(4096))
    hosted({}, 8, alone=False).write(tmp_path / "s")
    assert failed(patched_file(tmp_path / "disk.vmdk", descriptor("monolithicFlat", *lines))).code == code


def test_memory_does_not_grow_with_the_disk(tmp_path: Path) -> None:
    """62 TiB with one grain table in every 16th place, on SEsparse, whose tables are the largest."""
    capacity = (62 << 40) // 512
    tables = -(-capacity // (8 * 4096))
    path = tmp_path / "disk.vmdk"
    path.write_bytes(descriptor("seSparse", f'RW {capacity} SESPARSE "disk-sesparse.vmdk"'))
    small = sesparse({0: full(4096)}, 8)
    fields = list(struct.unpack_from("<26Q", small))
    directory_sectors = -(-tables * 8 // 512)
    fields[2], fields[17], fields[18], fields[24] = capacity, directory_sectors, 2 + directory_sectors, 1 << 20
    with (tmp_path / "disk-sesparse.vmdk").open("wb") as file:
        file.write(struct.pack("<26Q", *fields).ljust(512, b"\0") + small[512:1024])
        for place, index in enumerate(range(0, tables, 1 << 16)):
            file.seek(1024 + index * 8)
            file.write(struct.pack("<Q", 0x1000000000000000 | place))
            file.seek((2 + directory_sectors) * 512 + place * 32768)
            file.write(struct.pack("<Q", 3 << 60 | place << 48))
            file.seek(((1 << 20) + place * 8) * 512)
            file.write(bytes([place + 1]) * 4096)
    tracemalloc.start()
    with vmdk_source(path) as source:
        found = [(run.guest, source.load(run)[:1]) for run in source.runs(0, source.virtual_size)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [(index << 24 << 16, bytes([index + 1])) for index in range(len(found))] and len(found) == 62
    assert peak < 2 << 20
