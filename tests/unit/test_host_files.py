"""Data of a file, copies within the kernel, and names that come with their whole content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyper2kvmd.host.files import copy_range, data_ranges, write_durably

MIB = 1 << 20


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
        for at in (2 * MIB, 5 * MIB):
            file.seek(at)
            file.write(os.urandom(MIB))
    return path


def test_data_lies_where_it_was_written(sparse: Path) -> None:
    with sparse.open("rb") as file:
        assert list(data_ranges(file.fileno(), 0, 8 * MIB)) == [(2 * MIB, 3 * MIB), (5 * MIB, 6 * MIB)]
        assert list(data_ranges(file.fileno(), 2 * MIB + 4096, 5 * MIB + 8192)) == [
            (2 * MIB + 4096, 3 * MIB),
            (5 * MIB, 5 * MIB + 8192),
        ]
        assert list(data_ranges(file.fileno(), 6 * MIB, 8 * MIB)) == []


def test_an_error_is_no_hole(sparse: Path) -> None:
    closed = os.open(sparse, os.O_RDONLY)
    os.close(closed)
    with pytest.raises(OSError, match="Bad file descriptor"):
        list(data_ranges(closed, 0, 8 * MIB))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_copy_has_the_same_bytes_at_the_same_place(sparse: Path, tmp_path: Path, elsewhere: bool) -> None:
    folder = Path("/dev/shm") if elsewhere else tmp_path
    with (
        sparse.open("rb") as source,
        open(folder, "w+b", opener=lambda path, _flags: os.open(path, os.O_TMPFILE | os.O_RDWR, 0o600)) as target,
    ):
        at = 2 * MIB
        while copied := copy_range(source.fileno(), target.fileno(), at, 3 * MIB):
            at += copied
        assert at == 8 * MIB
        assert os.pread(target.fileno(), 6 * MIB, 2 * MIB) == os.pread(source.fileno(), 6 * MIB, 2 * MIB)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "note"
    write_durably(path, "first\n")
    write_durably(path, "second\n")
    assert [one.name for one in tmp_path.iterdir()] == ["note"]
    assert path.read_text() == "second\n"
