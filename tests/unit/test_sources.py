"""Limits for jobs that read from the same file system, by the table of mounts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from hyper2kvmd.config import MaxPerSource, load
from hyper2kvmd.daemon.sources import Sources, admission, file_system_of, limit_of, limits_line, read_mounts
from hyper2kvmd.errors import BrokenInstallation

MOUNTINFO = """\
21 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 21 0:40 / /mnt/nfs rw - nfs4 server:/exports rw
31 21 0:41 / /mnt/nfs/deep rw master:2 - nfs4 server:/deep rw
32 21 0:42 / /mnt/with\\040space rw - ext4 /dev/vdb rw
33 21 0:43 / /mnt/covered rw - ext4 /dev/vdc rw
34 33 0:44 / /mnt/covered rw - tmpfs tmpfs rw
35 21 0:40 /sub /mnt/again rw - nfs4 server:/exports rw
"""


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("/srv", "0:20"),
        ("/mnt/nfs", "0:40"),
        ("/mnt/nfs/a/b", "0:40"),
        ("/mnt/nfsold", "0:20"),
        ("/mnt/nfs/deep/x", "0:41"),
        ("/mnt/with space/x", "0:42"),
        ("/mnt/covered", "0:44"),
        ("/mnt/again/x", "0:40"),
    ],
)
def test_the_file_system_of_a_directory(directory: str, expected: str) -> None:
    assert file_system_of(Path(directory), read_mounts(MOUNTINFO)) == expected


@pytest.mark.parametrize(
    ("limits", "directory", "expected"),
    [
        (3, "/x", 3),
        ({"/mnt": 2, "/mnt/nfs": 1, "default": 4}, "/mnt/nfs/a", 1),
        ({"/mnt": 2, "/mnt/nfs": 1, "default": 4}, "/mnt/other", 2),
        ({"/mnt": 2, "default": 4}, "/mntx", 4),
        ({"/mnt": 2}, "/srv", None),
    ],
)
def test_the_limit_of_a_directory(limits: MaxPerSource, directory: str, expected: int | None) -> None:
    assert limit_of(Path(directory), limits) == expected


PROC = ("/proc",)
"""On a file system of its own."""


@pytest.mark.parametrize(
    ("limits", "running", "asked", "expected"),
    [
        (1, [], PROC, True),
        (1, [("/",)], PROC, True),
        (1, [("/proc/self", "/proc/sys")], PROC, False),
        (2, [("/proc/self", "/proc/sys")], PROC, True),
        (2, [PROC, ("/proc/self",)], PROC, False),
        (1, [PROC], ("/", "/proc"), False),
        ({"/proc/self": 1}, [PROC], PROC, True),
        ({"/proc/self": 1}, [PROC], ("/proc/self",), False),
        (1, [PROC], (), True),
    ],
)
def test_a_job_starts_beside_others(
    limits: MaxPerSource, running: list[Sources], asked: Sources, expected: bool
) -> None:
    assert admission(limits, running)(asked) is expected


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        (2, "2 at the same time from one file system"),
        ({"/a": 1, "default": 3}, "1 from /a, 3 from any other"),
        ({"/a": 1}, "1 from /a, any number from others"),
    ],
)
def test_the_limits_in_the_log(limits: MaxPerSource, line: str) -> None:
    assert limits_line(limits) == line


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("0", "max_per_source has 0, which is not from 1 to 64"),
        ("{/a: 1, /b: 65}", "max_per_source has 65, which is not from 1 to 64"),
        ("{a: 1}", "max_per_source names a, which is no plain absolute directory"),
        ("{/a/: 1}", "max_per_source names /a/, which is no plain absolute directory"),
        ("many", "max_per_source is many, not a whole number"),
        ("{/a: many}", "max_per_source./a is many, not a whole number"),
    ],
)
def test_a_limit_that_is_refused(text: str, fact: str, tmp_path: Path) -> None:
    path = tmp_path / "hyper2kvmd.yaml"
    path.write_text(f"max_per_source: {text}\n")
    with pytest.raises(BrokenInstallation) as raised:
        load(path)
    assert fact in raised.value.message and "a mapping of absolute directories" in raised.value.message


def test_limits_by_directory_are_read(tmp_path: Path) -> None:
    path = tmp_path / "hyper2kvmd.yaml"
    path.write_text("max_per_source:\n  /mnt/nfs: 1\n  default: 4\n")
    limits = load(path).max_per_source
    assert isinstance(limits, Mapping) and dict(limits) == {"/mnt/nfs": 1, "default": 4}
