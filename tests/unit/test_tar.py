"""Tar archives of every writer, and what none of them may say."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from hyper2kvmd.disk.files import open_file
from hyper2kvmd.errors import Failure
from hyper2kvmd.machines.archives import names
from hyper2kvmd.machines.archives.streams import Plain
from hyper2kvmd.machines.archives.tar import MAX_EXTENSION, MAX_EXTENSIONS, Member, is_tar, read_members
from tests.support.archives import BLOCK, Entry, header, padded, pax, tar
from tests.support.disks import sh

GIB = 1 << 30


def members(path: Path, data: bytes | None = None) -> list[Member]:
    if data is not None:
        path.write_bytes(data)
    file = open_file(path)
    try:
        return [*read_members(Plain(file), path)]
    finally:
        os.close(file.fd)


def refusal(path: Path, data: bytes) -> Failure:
    with pytest.raises(Failure) as caught:
        members(path, data)
    assert str(path) in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1000
    return caught.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "web01.ova"


def seen(path: Path, *entries: Entry) -> list[tuple[str, bytes]]:
    data = tar(*entries)
    return [(name, data[offset : offset + length]) for name, offset, length in members(path, data)]


FILE = Entry("disk.vmdk", b"content")


@pytest.mark.parametrize(
    "entry",
    [
        FILE,
        Entry("disk.vmdk", b"content", base256=True),
        Entry("disk.vmdk", b"content", magic=b"ustar  \0"),
        Entry("disk.vmdk", b"content", magic=bytes(8)),
        Entry("disk.vmdk", b"content", kind=b"\0"),
        Entry("disk.vmdk", b"content", kind=b"7"),
        Entry("./disk.vmdk", b"content"),
        Entry(".///disk.vmdk", b"content"),
        Entry("disk.vmdk", b"content", signed_sum=True),
    ],
)
def test_one_file_in_every_form(path: Path, entry: Entry) -> None:
    assert seen(path, entry) == [("disk.vmdk", b"content")]


def test_sums_of_signed_bytes(path: Path) -> None:
    """Of names with letters outside ASCII; Solaris and old BSDs wrote them."""
    assert seen(path, Entry("dïsk.vmdk", b"content", signed_sum=True)) == [("dïsk.vmdk", b"content")]


def test_names_in_every_form(path: Path) -> None:
    long = "x" * 200
    assert seen(path, Entry("vm.ovf", b"1", prefix=b"export")) == [("export/vm.ovf", b"1")]
    assert seen(path, Entry("vm.ovf", b"1", prefix=b"export", magic=b"ustar  \0")) == [("vm.ovf", b"1")]
    assert seen(path, pax([("path", long)]), Entry("short", b"1")) == [(long, b"1")]
    assert seen(path, Entry("././@LongLink", long.encode() + b"\0", b"L"), Entry("short", b"1")) == [(long, b"1")]
    assert seen(path, Entry("././@LongLink", b"target", b"K"), FILE) == [("disk.vmdk", b"content")]
    assert seen(path, pax([("path", "磁盘.vmdk"), ("mtime", "1.5")]), Entry("short", b"1")) == [("磁盘.vmdk", b"1")]


def test_sizes_beyond_octal(path: Path) -> None:
    """A file of 9 GiB, which ustar cannot describe: as GNU tar and as PAX say it."""
    for entries in (
        (Entry("disk.vmdk", size=9 * GIB, base256=True),),
        (pax([("size", str(9 * GIB))]), Entry("disk.vmdk", size=0)),
    ):
        head = b"".join(header(entry) + padded(entry.data) for entry in entries)
        with path.open("wb") as file:
            file.write(head)
            file.seek(9 * GIB, os.SEEK_CUR)
            file.write(tar(Entry("after.txt", b"after")))
        assert members(path) == [
            Member("disk.vmdk", len(head), 9 * GIB),
            Member("after.txt", len(head) + 9 * GIB + BLOCK, 5),
        ]


def test_what_is_no_file_is_left_out(path: Path) -> None:
    entries = (
        *(Entry("./", kind=b"5"), Entry("export/", kind=b"5"), Entry("label", kind=b"V")),
        *(pax([("comment", "by git")], b"g"), Entry("._disk.vmdk", b"mac"), Entry(".DS_Store", b"mac"), FILE),
        *(Entry("__MACOSX/disk.vmdk", b"mac"),),
    )
    assert seen(path, *entries) == [("disk.vmdk", b"content")]


@pytest.mark.parametrize("end", [b"", bytes(BLOCK), bytes(20 * BLOCK), bytes(2 * BLOCK) + b"\1" * 700])
def test_every_end(path: Path, end: bytes) -> None:
    assert len(members(path, tar(FILE, end=end))) == 1


def test_the_last_file_may_lack_its_padding(path: Path) -> None:
    assert members(path, header(FILE) + FILE.data) == [Member("disk.vmdk", BLOCK, 7)]


@pytest.mark.parametrize("fmt", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_writes(tmp_path: Path, path: Path, fmt: str) -> None:
    (tmp_path / "web01.ovf").write_bytes(b"ovf")
    (tmp_path / "web01-disk1.vmdk").write_bytes(b"x" * 1500)
    sh("tar", "-C", tmp_path, f"--format={fmt}", "-cf", path, "web01.ovf", "web01-disk1.vmdk")
    assert members(path) == [Member("web01.ovf", *_place(path, 0)), Member("web01-disk1.vmdk", *_place(path, 1))]


@pytest.mark.parametrize("fmt", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_writes(path: Path, fmt: int) -> None:
    long = "/".join(["ä" * 40] * 4)
    with tarfile.open(path, "w", format=fmt) as archive:
        for name in ("web01.ovf", "a" * 90 + "/" + "b" * 60, *([long] if fmt != tarfile.USTAR_FORMAT else [])):
            info = tarfile.TarInfo(name)
            info.size = 600
            archive.addfile(info, io.BytesIO(b"x" * 600))
    with tarfile.open(path) as archive:
        assert [one.name for one in members(path)] == archive.getnames()


def _place(path: Path, number: int) -> tuple[int, int]:
    with tarfile.open(path) as archive:
        info = archive.getmembers()[number]
        return info.offset_data, info.size


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([Entry("../disk.vmdk", b"1")], "archive-unsafe"),
        ([Entry("a/../../disk.vmdk", b"1")], "archive-unsafe"),
        ([Entry("/etc/passwd", b"1")], "archive-unsafe"),
        ([Entry("a//b", b"1")], "archive-unsafe"),
        ([Entry("", b"1")], "archive-unsafe"),
        ([Entry("a\nb", b"1")], "archive-unsafe"),
        ([Entry("a\x1b[31mb", b"1")], "archive-unsafe"),
        ([pax([("path", "../disk.vmdk")]), FILE], "archive-unsafe"),
        ([Entry("././@LongLink", b"../disk.vmdk\0", b"L"), FILE], "archive-unsafe"),
        ([pax([("path", "x" * 2000)]), FILE], "archive-unsafe"),
        ([pax([("path", "x" * 256)]), FILE], "archive-unsafe"),
        ([FILE, FILE], "archive-unsafe"),
        ([FILE, Entry("./disk.vmdk", b"other")], "archive-unsafe"),
        ([Entry("disk.vmdk", kind=b"1", link=b"/etc/shadow")], "archive-unsafe"),
        ([Entry("disk.vmdk", kind=b"2", link=b"/etc/shadow")], "archive-unsafe"),
        ([Entry("disk.vmdk", kind=b"3")], "archive-unsafe"),
        ([Entry("disk.vmdk", kind=b"4")], "archive-unsafe"),
        ([Entry("disk.vmdk", kind=b"6")], "archive-unsafe"),
        ([Entry("disk.vmdk", b"1", kind=b"S")], "archive-unsafe"),
        ([Entry("disk.vmdk", b"1", kind=b"M")], "archive-unsafe"),
        ([Entry("disk.vmdk", b"1", kind=b"Z")], "archive-unsafe"),
        ([pax([("GNU.sparse.major", "1")]), FILE], "archive-unsafe"),
        ([Entry("disk.vmdk", b"1", size=GIB)], "source-truncated"),
        ([Entry("disk.vmdk", b"1", size=1 << 63, base256=True)], "source-corrupt"),
        ([pax([("size", str(1 << 63))]), FILE], "source-corrupt"),
        ([pax([("size", "-1")]), FILE], "source-corrupt"),
        ([pax([("size", "1e3")]), FILE], "source-corrupt"),
        ([pax([("size", "7")], b"g"), FILE], "source-corrupt"),
        ([pax([("path", "x")], b"g"), FILE], "source-corrupt"),
        ([Entry("x", b"9 path=ab\n", b"x"), FILE], "source-corrupt"),
        ([Entry("x", b"99 path=a\n", b"x"), FILE], "source-corrupt"),
        ([Entry("x", b"0 path=a\n", b"x"), FILE], "source-corrupt"),
        ([Entry("x", b"7 path\n", b"x"), FILE], "source-corrupt"),
        ([Entry("x", b"path=a\n", b"x"), FILE], "source-corrupt"),
        ([Entry("x", bytes(MAX_EXTENSION + 1), b"x"), FILE], "archive-too-large"),
        ([Entry("x", b"", b"x", size=GIB, base256=True)], "archive-too-large"),
        ([Entry("x", b"", b"x", size=4096)], "source-truncated"),
        ([pax([("comment", "x")])] * (MAX_EXTENSIONS + 1), "archive-too-large"),
        ([], "source-corrupt"),
    ],
)
def test_refusals(path: Path, entries: Iterable[Entry], code: str) -> None:
    assert refusal(path, tar(*entries)).code == code


@pytest.mark.parametrize("at", [0, 100, 124, 150, 257, 511])
def test_a_damaged_header(path: Path, at: int) -> None:
    data = bytearray(tar(Entry("first", b"1"), FILE))
    data[1024 + at] ^= 0x55
    assert refusal(path, bytes(data)).code == "source-corrupt"


def test_a_negative_size(path: Path) -> None:
    data = bytearray(header(FILE))
    data[124:136] = b"\xff" * 12
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    assert refusal(path, bytes(data)).code == "source-corrupt"


def test_an_archive_that_ends_in_a_header(path: Path) -> None:
    assert refusal(path, tar(FILE, end=b"")[:-1] + header(FILE)[:100]).code == "source-truncated"
    assert refusal(path, tar(FILE, end=bytes(100))).code == "source-truncated"


def test_files_without_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MAX_FILES", 3)
    entries = [Entry(f"{number}", b"") for number in range(4)]
    assert len(members(path, tar(*entries[:3]))) == 3
    assert refusal(path, tar(*entries)).code == "archive-too-large"


def test_only_a_header_makes_an_archive() -> None:
    assert is_tar(header(FILE))
    assert is_tar(header(Entry("a", b"1", magic=bytes(8))))
    assert not is_tar(bytes(512))
    assert not is_tar(header(FILE)[:511])
    assert not is_tar(b"KDMV" + bytes(508))
