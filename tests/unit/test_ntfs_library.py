"""The installed NTFS library is the known one. `make test-python` runs this with that of another Debian release."""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.volumes.ntfs.tool import check_library
from tests.support.ntfs import changed, make_ntfs, opened


def test_the_library_has_all_functions() -> None:
    check_library()


def test_the_library_has_the_known_structures(tmp_path: Path) -> None:
    """They are compared when a volume is opened; folders, files and security are read through them."""
    path = make_ntfs(tmp_path / "c.img")
    with changed(path) as volume:
        volume.mkdir("Windows")
        volume.write("Windows/first.sys", b"first")
        volume.write("windows/SECOND.sys", b"second" * 5000)
    with opened(path) as volume:
        assert set(volume.names("Windows")) == {"first.sys", "SECOND.sys"}
        assert volume.read("Windows/second.SYS", 1 << 20) == b"second" * 5000
        assert volume.entry("Windows").is_folder and not volume.entry("Windows/first.sys").is_folder
