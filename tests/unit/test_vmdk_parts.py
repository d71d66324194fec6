"""Paths that lead to no disk: a part that was not copied, a directory, a link. The error says what was found."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from hyper2kvmd.disk.files import open_file
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import Failure, Unsafe
from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.model.disks import LocalFile
from tests.support.vmdk_images import descriptor


def failure_of(path: Path) -> Failure:
    with Sources(path.parent) as sources, pytest.raises(Failure) as refused:
        sources.open([LocalFile(path=path)])
    return refused.value


@pytest.mark.parametrize(
    ("missing", "content"),
    [
        ("web01-flat.vmdk", descriptor("monolithicFlat", 'RW 2048 FLAT "web01-flat.vmdk" 0')),
        ("web01-s002.vmdk", descriptor("twoGbMaxExtentSparse", 'RW 1 ZERO\nRW 2048 SPARSE "web01-s002.vmdk"')),
        ("base.vmdk", descriptor("monolithicFlat", "RW 1 ZERO", parent=("1234abcd", "base.vmdk"))),
    ],
)
def test_a_missing_part_is_named_with_its_descriptor(missing: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "web01.vmdk"
    path.write_bytes(content)
    failure = failure_of(path)
    assert failure.code == "source-missing"
    assert failure.message == f"{tmp_path / missing} does not exist, but {path} names it as a part of the disk"
    assert f"Copy {missing} beside web01.vmdk" in failure.hint


def _directory(path: Path) -> None:
    path.mkdir()


def _link(path: Path) -> None:
    path.symlink_to("real.vmdk")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.mark.parametrize(
    ("make", "fact", "hint"),
    [
        (_directory, "is a directory", "use ova:"),
        (_link, "is a symbolic link", "readlink -f"),
        (os.mkfifo, "is a pipe", "the file itself"),
        (_socket, "is a socket", "the file itself"),
    ],
)
@pytest.mark.parametrize("mandate", [ANYONE, Mandate(folders=(Path("/"),))])
def test_what_is_no_file_is_named(
    make: Callable[[Path], None],
    fact: str,
    hint: str,
    mandate: Mandate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    make(Path("web01.vmdk"))
    with pytest.raises(Unsafe) as refused:
        open_file(tmp_path / "web01.vmdk", mandate)
    assert refused.value.code == "source-unsafe" and hint in refused.value.hint
    assert refused.value.message == f"{tmp_path / 'web01.vmdk'} {fact}"


def test_a_missing_disk_is_a_wrong_path(tmp_path: Path) -> None:
    failure = failure_of(tmp_path / "web01.vmdk")
    assert failure.message == f"{tmp_path / 'web01.vmdk'} does not exist" and "Correct the path" in failure.hint
