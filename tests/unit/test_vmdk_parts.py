"""A VMDK of which a part was not copied: the error names the part, the file that names it, and where to copy it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import Failure
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


def test_a_missing_disk_is_a_wrong_path(tmp_path: Path) -> None:
    failure = failure_of(tmp_path / "web01.vmdk")
    assert failure.message == f"{tmp_path / 'web01.vmdk'} does not exist" and "Correct the path" in failure.hint
