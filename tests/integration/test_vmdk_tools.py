"""VMDKs as tools besides VMware's write them: their first lines, sizes, encodings and extent lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hyper2kvmd.errors import Failure
from tests.support.vmdk import full, seen_by_qemu
from tests.support.vmdk_images import Grains, content, cowd, descriptor, expected, hosted, sesparse, stream, vmdk_source

CAPACITY = 128 * 20
"""Sectors, a multiple of 64 KiB."""
DISK: Grains = {0: full(65536), 3: b"text" * 16384, 18: full(65536)[::-1], 19: b"end!" * 16384}
FIRST_LINE = b"# Disk DescriptorFile"
FIRST_LINES = (
    b"# Disk Descriptor File",
    b"#Disk DescriptorFile",
    b"#Disk Descriptor File",
    b"# disk descriptorfile  ",
    b"\xef\xbb\xbf# Disk DescriptorFile",
    b"\n# made by hand\n\n# Disk DescriptorFile",
    b"# made by hand",
)
Make = Callable[..., bytes]


def sparse_file(grains: Grains, capacity: int, text: bytes) -> bytes:
    return hosted(grains, capacity, text=text).data


def packed_file(grains: Grains, capacity: int, text: bytes) -> bytes:
    return hosted(grains, capacity, text=text, packed=True).data


def stream_file(grains: Grains, capacity: int, text: bytes) -> bytes:
    return stream(grains, capacity, text=text)


MAKERS = (sparse_file, packed_file, stream_file)


def failed(path: Path) -> Failure:
    with pytest.raises(Failure) as caught:
        content(path)
    assert str(caught.value).isprintable()
    return caught.value


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def own(sectors: int, kind: str = "monolithicSparse") -> bytes:
    return descriptor(kind, f'RW {sectors} SPARSE "own.vmdk"')


# ---------------------------------------------------------------- the first line


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("first", FIRST_LINES)
def test_a_separate_descriptor_with_any_first_line(first: bytes, line_end: bytes, tmp_path: Path) -> None:
    text = descriptor("monolithicFlat", 'RW 128 FLAT "disk-flat.vmdk" 0').replace(FIRST_LINE, first)
    (tmp_path / "disk-flat.vmdk").write_bytes(full(65536))
    path = written(tmp_path / "disk.vmdk", text.replace(b"\n", line_end))
    assert content(path) == full(65536)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("first", [*FIRST_LINES, b"", b"anything"])
def test_a_descriptor_inside_with_any_first_line(first: bytes, make: Make, tmp_path: Path) -> None:
    path = written(tmp_path / "disk.vmdk", make(DISK, CAPACITY, own(CAPACITY).replace(FIRST_LINE, first)))
    assert content(path) == expected(DISK, CAPACITY * 512, 65536) == seen_by_qemu(path)


@pytest.mark.parametrize("text", [b"# Disk\n", b"createType", b"# no version\nCID=1\n"])
def test_other_texts_are_no_descriptors(text: bytes, tmp_path: Path) -> None:
    assert failed(written(tmp_path / "disk.vmdk", text.ljust(600))).code == "source-not-vmdk"


# ---------------------------------------------------------------- the size


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("less", [1, 91, 127])
def test_a_capacity_rounded_up_by_virtualbox(less: int, make: Make, tmp_path: Path) -> None:
    sectors = CAPACITY - less
    path = written(tmp_path / "disk.vmdk", make(DISK, CAPACITY, own(sectors)))
    assert content(path) == expected(DISK, sectors * 512, 65536)


def test_rounded_extents_of_a_split_disk(tmp_path: Path) -> None:
    for number in (1, 2):
        hosted(DISK, CAPACITY, alone=False).write(tmp_path / f"s{number}")
    lines = [f'RW {CAPACITY - 37} SPARSE "s1"', f'RW {CAPACITY - 5} SPARSE "s2"']
    path = written(tmp_path / "disk.vmdk", descriptor("twoGbMaxExtentSparse", *lines))
    both = expected(DISK, (CAPACITY - 37) * 512, 65536) + expected(DISK, (CAPACITY - 5) * 512, 65536)
    assert content(path) == both


def test_a_rounding_of_whole_grains_without_data(tmp_path: Path) -> None:
    grains = {number: data for number, data in DISK.items() if number < 10}
    path = written(tmp_path / "disk.vmdk", sparse_file(grains, CAPACITY, own(128 * 10 + 1)))
    assert content(path) == expected(grains, (128 * 10 + 1) * 512, 65536)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("capacity", "sectors"),
    [(CAPACITY, 128 * 19), (CAPACITY, CAPACITY + 1), (CAPACITY - 37, CAPACITY - 38), (CAPACITY - 37, CAPACITY)],
)
def test_sizes_that_no_rounding_explains(capacity: int, sectors: int, make: Make, tmp_path: Path) -> None:
    """A grain with data would be cut off, or the header is too small, or it is not rounded."""
    failure = failed(written(tmp_path / "disk.vmdk", make(DISK, capacity, own(sectors))))
    assert failure.code == "source-corrupt"
    assert str(capacity * 512) in failure.message and str(sectors * 512) in failure.message


# ---------------------------------------------------------------- the encoding


@pytest.mark.parametrize(
    ("stated", "codec", "name"),
    [
        ("GBK", "gbk", "\u865a\u62df\u673a"),
        ("windows-936", "gbk", "\u865a\u62df\u673a"),
        ("GB2312", "gbk", "\u5297\u9f98"),
        ("Big5", "big5", "\u8a66\u9a57"),
        ("Shift_JIS", "cp932", "\u30c6\u30b9\u30c8\u2460"),
        ("windows-31j", "cp932", "\u8868"),
        ("EUC-KR", "euc_kr", "\uc2dc\ud5d8"),
        ("windows-949", "cp949", "\ub620"),
        ("windows-1252", "cp1252", "B\u00fcro \u20ac"),
        ("ISO-8859-1", "latin-1", "caf\u00e9"),
        ("windows-1251", "cp1251", "\u0434\u0438\u0441\u043a"),
        ("UTF-8", "utf-8", "d\u00edsk \u2603"),
        ("an-unknown-one", "utf-8", "d\u00edsk"),
    ],
)
def test_names_in_the_code_page_of_the_host(stated: str, codec: str, name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}-flat.vmdk").write_bytes(full(65536))
    base = descriptor("monolithicFlat", f'RW 128 FLAT "{name}-flat.vmdk" 0', cid="1234abcd").decode()
    (tmp_path / f"{name}.vmdk").write_bytes(f'{base}encoding="{stated}"\n'.encode(codec))
    hosted({}, 128, alone=False).write(tmp_path / "delta")
    child = descriptor("custom", 'RW 128 SPARSE "delta"', parent=("1234abcd", f"{name}.vmdk")).decode()
    path = written(tmp_path / "child.vmdk", f"{child}encoding={stated}\n".encode(codec))
    assert content(path) == content(tmp_path / f"{name}.vmdk") == full(65536)


@pytest.mark.parametrize("line", [b'RW 128 FLAT "\xfc-flat.vmdk" 0', b'parentFileNameHint="\xfc.vmdk"\nRW 8 ZERO'])
@pytest.mark.parametrize("stated", [b"", b'encoding="UTF-8"', b'encoding="UTF-16"', b'encoding="hex"'])
def test_a_name_in_another_encoding_than_stated(stated: bytes, line: bytes, tmp_path: Path) -> None:
    text = b"\n".join((descriptor("monolithicFlat"), stated, line))
    failure = failed(written(tmp_path / "disk.vmdk", text))
    assert failure.code == "source-encoding"
    assert "encoding=" in failure.hint


def test_other_undecodable_lines_do_not_matter(tmp_path: Path) -> None:
    text = descriptor("monolithicFlat", "RW 8 ZERO") + b'ddb.comment = "\xfc"\n# \xff\n'
    assert content(written(tmp_path / "disk.vmdk", text)) == bytes(4096)


# ---------------------------------------------------------------- extent lines, types and parents


@pytest.mark.parametrize(
    "line",
    [
        '  RW 128 FLAT "flat.vmdk" 0',
        '\tRW\t128   FLAT  "flat.vmdk"\t0  ',
        'RW 128 FLAT "flat.vmdk" 0 partitionUUID 16f3-42 device:0',
        'RW 128 FLAT "flat.vmdk" 0 # the whole disk',
        'RW 128 VMFS "flat.vmdk"',
        'RW 128 VMFS "flat.vmdk" partitionUUID x',
        'RDONLY 128 FLAT "flat.vmdk"',
    ],
)
def test_extent_lines_with_blanks_and_further_fields(line: str, tmp_path: Path) -> None:
    (tmp_path / "flat.vmdk").write_bytes(full(65536))
    assert content(written(tmp_path / "disk.vmdk", descriptor("custom", line))) == full(65536)


@pytest.mark.parametrize(
    "line",
    [
        'RW 128 FLAT "flat.vmdk" zero',
        'RW 128 FLAT "flat.vmdk" -1',
        'RW 128 VMFS "flat.vmdk" -1',
        'RW 128 FLAT "flat.vmdk" 1234567890123456789',
        'RW 128 FLAT "flat.vmdk',
        'rw 128 FLAT "flat.vmdk" 0',
        'RW 128 SPARSE "sparse.vmdk" 8',
    ],
)
def test_extent_lines_that_would_be_read_wrongly(line: str, tmp_path: Path) -> None:
    (tmp_path / "flat.vmdk").write_bytes(full(65536))
    hosted({0: full(65536)}, 128, alone=False).write(tmp_path / "sparse.vmdk")
    path = written(tmp_path / "disk.vmdk", descriptor("custom", line, "RW 8 ZERO"))
    assert failed(path).code == "source-not-vmdk"


@pytest.mark.parametrize("kind", ["monolithicSparse", "streamOptimized", "2GbMaxExtentSparse", "custom"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_sparse_file_with_a_separate_descriptor(alone: bool, kind: str, tmp_path: Path) -> None:
    hosted(DISK, CAPACITY, alone=alone, packed=kind == "streamOptimized").write(tmp_path / "data.vmdk")
    path = written(tmp_path / "disk.vmdk", descriptor(kind, f'RW {CAPACITY} SPARSE "data.vmdk"'))
    assert content(path) == expected(DISK, CAPACITY * 512, 65536)
    with vmdk_source(path) as source:
        assert [file.path.name for file in source.files] == ["disk.vmdk", "data.vmdk"]


def test_a_separate_descriptor_cannot_hide_a_parent(tmp_path: Path) -> None:
    """The missing grains of a delta are not zeros."""
    hosted(DISK, CAPACITY, parent=("12345678", "base.vmdk")).write(tmp_path / "data.vmdk")
    path = written(tmp_path / "disk.vmdk", descriptor("monolithicSparse", f'RW {CAPACITY} SPARSE "data.vmdk"'))
    assert failed(path).code == "source-corrupt"


@pytest.mark.parametrize("kind", ["vmfsThin", "vmfsPreallocated", "vmfsEagerZeroedThick", "2GbMaxExtentFlat"])
def test_more_types_of_flat_disks(kind: str, tmp_path: Path) -> None:
    (tmp_path / "flat.vmdk").write_bytes(full(65536))
    assert content(written(tmp_path / "disk.vmdk", descriptor(kind, 'RW 128 FLAT "flat.vmdk" 0'))) == full(65536)


def test_an_empty_hint_is_no_parent(tmp_path: Path) -> None:
    text = descriptor("monolithicFlat", "RW 8 ZERO", parent=("ffffffff", ""))
    assert content(written(tmp_path / "disk.vmdk", text)) == bytes(4096)


@pytest.mark.parametrize("data", [cowd({0: b"x"}, 8), sesparse({0: b"x"}, 8), hosted({}, 8, alone=False).data])
def test_an_extent_without_its_descriptor(data: bytes, tmp_path: Path) -> None:
    assert failed(written(tmp_path / "disk-delta.vmdk", data)).code == "source-extent"
