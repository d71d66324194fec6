"""ZIP archives: where their files are, and what none of them may say."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.disk.files import SourceFile, open_file
from hyper2kvmd.errors import Failure
from hyper2kvmd.machines.archives import names
from hyper2kvmd.machines.archives.zip import Zipped, read_members

DATA = b"content" * 100


def members(path: Path, data: bytes | None = None) -> tuple[Zipped, ...]:
    if data is not None:
        path.write_bytes(data)
    file = open_file(path)
    try:
        return read_members(file)
    finally:
        os.close(file.fd)


def made(*files: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        archive.comment = comment
        for name, data in files:
            archive.writestr(name, data)
    return sink.getvalue()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "web01.ova"


ONE = made(("disk.vmdk", DATA))


@pytest.mark.parametrize("comment", [b"", b"c" * 65535, b"PK\x05\x06"])
def test_stored_files_are_where_they_are(path: Path, comment: bytes) -> None:
    data = made(("web01.ovf", b"ovf"), ("disk.vmdk", DATA), comment=comment)
    if comment.startswith(b"PK"):
        with pytest.raises(Failure):
            members(path, data)
        return
    found = members(path, data)
    assert [(one.name, data[one.offset :][: one.length], one.is_deflated) for one in found] == [
        ("web01.ovf", b"ovf", False),
        ("disk.vmdk", DATA, False),
    ]


def test_sizes_of_64_bits(path: Path) -> None:
    sink = io.BytesIO()
    with (
        zipfile.ZipFile(sink, "w") as archive,
        archive.open(zipfile.ZipInfo("disk.vmdk"), "w", force_zip64=True) as file,
    ):
        file.write(DATA)
    data = bytearray(sink.getvalue())
    assert members(path, bytes(data))[0].length == len(DATA)
    entry = data.rfind(b"PK\x01\x02")
    extra = struct.pack("<2HQQ", 1, 16, len(DATA), len(DATA))
    data[entry + 20 : entry + 28] = b"\xff" * 8
    data[entry + 30 : entry + 32] = struct.pack("<H", len(extra))
    end = data.rfind(b"PK\x05\x06")
    data[end + 12 : end + 16] = struct.pack("<L", end - entry + len(extra))
    data[end:end] = extra
    assert members(path, bytes(data))[0].length == len(DATA)


def test_a_directory_in_64_bits(path: Path) -> None:
    data = bytearray(ONE)
    end = data.rfind(b"PK\x05\x06")
    size, at = struct.unpack_from("<2L", data, end + 12)
    data[end + 8 : end + 20] = b"\xff" * 12
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, at)
    data[end:end] = end64 + struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    assert members(path, bytes(data))[0].name == "disk.vmdk"


def test_what_is_no_file_is_left_out(path: Path) -> None:
    data = made(("export/", b""), ("__MACOSX/._disk.vmdk", b"mac"), ("disk.vmdk", DATA))
    assert [one.name for one in members(path, data)] == ["disk.vmdk"]


def linked() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("disk.vmdk")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def patched(at: Callable[[bytes], int], new: bytes, data: bytes = ONE) -> bytes:
    place = at(data)
    return data[:place] + new + data[place + len(new) :]


def of_entry(offset: int) -> Callable[[bytes], int]:
    return lambda data: data.rfind(b"PK\x01\x02") + offset


def of_end(offset: int) -> Callable[[bytes], int]:
    return lambda data: data.rfind(b"PK\x05\x06") + offset


TWO = made(("a", DATA), ("b", DATA))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (made(("../disk.vmdk", DATA)), "archive-unsafe"),
        (made(("/etc/passwd", DATA)), "archive-unsafe"),
        (made(("a/../../b", DATA)), "archive-unsafe"),
        (made((linked(), b"/etc/shadow")), "archive-unsafe"),
        (
            patched(of_entry(46), b"a", patched(lambda data: data.rfind(b"PK\x03\x04") + 30, b"a", TWO)),
            "archive-unsafe",
        ),
        (patched(of_entry(8), b"\1"), "source-unsupported"),
        (patched(of_entry(10), b"\x0c"), "source-unsupported"),
        (patched(of_entry(24), b"\1\0"), "source-corrupt"),
        (patched(of_entry(20), b"\xff\xff\xff\x7f\xff\xff\xff\x7f"), "source-truncated"),
        (patched(of_entry(42), b"\xff\xff\xff\x7f"), "source-truncated"),
        (patched(of_entry(42), b"\1"), "source-corrupt"),
        (patched(of_entry(42), b"\0\0\0\0", TWO), "source-corrupt"),
        (patched(of_entry(42), b"\xff\xff\xff\xff"), "source-corrupt"),
        (patched(of_entry(0), b"XX"), "source-corrupt"),
        (patched(of_end(10), b"\x10\x27"), "source-corrupt"),
        (patched(of_end(10), b"\xfe\xff"), "archive-too-large"),
        (patched(of_end(10), b"\xff\xff"), "source-corrupt"),
        (patched(of_end(12), b"\xff\xff\xff\x7f"), "archive-too-large"),
        (patched(of_end(16), b"\xff\xff\xff\x7f"), "source-truncated"),
        (patched(of_end(4), b"\1"), "source-unsupported"),
        (ONE[:-22], "source-truncated"),
        (ONE[:-1], "source-truncated"),
        (b"PK\x03\x04", "source-truncated"),
    ],
)
def test_refusals(path: Path, data: bytes, code: str) -> None:
    with pytest.raises(Failure) as caught:
        members(path, data)
    assert caught.value.code == code
    assert str(path) in caught.value.message
    assert caught.value.message.isprintable()


def test_two_names_for_the_same_bytes(path: Path) -> None:
    """Each would be unpacked by itself: many files from few bytes."""
    data = made(("a", DATA))
    entry, end = data.rfind(b"PK\x01\x02"), data.rfind(b"PK\x05\x06")
    again = data[entry:end].replace(b"a", b"b")
    twice = bytearray(data[:end] + again + data[end:])
    twice[end + len(again) + 8 : end + len(again) + 16] = struct.pack("<2HL", 2, 2, 2 * len(again))
    with pytest.raises(Failure) as caught:
        members(path, bytes(twice))
    assert caught.value.code == "source-corrupt"


def test_files_without_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MAX_FILES", 1)
    with pytest.raises(Failure) as caught:
        members(path, TWO)
    assert caught.value.code == "archive-too-large"


def test_a_large_directory_is_copied_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied, read_whole = 0, SourceFile.read_whole

    class Counted(bytes):
        def __getitem__(self, key: Any) -> Any:
            nonlocal copied
            part: bytes = super().__getitem__(key)
            copied += len(part)
            return part

    monkeypatch.setattr(SourceFile, "read_whole", lambda *given: Counted(read_whole(*given)))
    data = made(*((f"{number:03}", b"") for number in range(500)))
    assert len(members(path, data)) == 500
    assert 0 < copied < len(data)
