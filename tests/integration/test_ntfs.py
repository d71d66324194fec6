"""NTFS volumes by mkntfs are changed by the confined process, and readers of other authors agree on the result."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import struct
from pathlib import Path

import pytest

from hyper2kvmd.errors import BrokenInstallation, Kind, MigrationFailed
from hyper2kvmd.guest.files.ntfs_root import NtfsRoot
from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.volumes.ntfs import tool
from tests.support.disks import sh
from tests.support.host import MIB
from tests.support.ntfs import changed, disk_of, is_sound, make_ntfs, mounted, opened, seen_by_dissect, seen_by_fuse


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return make_ntfs(tmp_path / "c.img")


@pytest.fixture
def windows(disk: Path) -> Path:
    """With the folders of Windows, two files, and names in mixed case."""
    with changed(disk) as volume:
        for folder in ("Windows", "Windows/System32", "Windows/System32/drivers", "Windows/System32/config"):
            volume.mkdir(folder)
        volume.write("Windows/System32/drivers/disk.sys", b"driver")
        volume.write("Windows/System32/config/SYSTEM", b"hive" * 100_000)
    return disk


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_three_readers_see_what_was_written(windows: Path, tmp_path: Path) -> None:
    contents = {f"Windows/System32/drivers/d{number}.sys": os.urandom(number * 4099) for number in range(40)}
    contents["Windows/System32/config/SYSTEM"] = os.urandom(3 * MIB + 5)
    contents["Windows/Größe ☃ 𝄞.txt"] = b"name"
    with changed(windows) as volume:
        for path, data in contents.items():
            volume.write(path, data)
        volume.mkdir("Windows/empty")
        volume.unlink("windows/system32/drivers/DISK.SYS")
    wanted = {path: digest(data) for path, data in contents.items()}
    for seen in (seen_by_dissect(windows), seen_by_fuse(windows, tmp_path / "mnt")):
        assert {path: seen[path] for path in wanted} == wanted
        assert seen["Windows/empty"] == "folder" and "Windows/System32/drivers/disk.sys" not in seen
    assert is_sound(windows)
    assert "Version" in sh("fsntfsinfo", windows)
    with opened(windows, read_only=True) as again:
        assert {path: digest(again.read(path, 8 * MIB)) for path in wanted} == wanted


def test_the_image_changes_by_the_changed_blocks_only(windows: Path) -> None:
    before = windows.read_bytes()
    with opened(windows) as volume:
        volume.write("new", b"new")
        assert volume.read("NEW", 10) == b"new"
        made = volume.changed_blocks()
    assert windows.read_bytes() == before
    with disk_of(windows) as disk:
        made.write(disk)
    assert windows.read_bytes() != before


def test_nothing_changed_is_no_block(windows: Path) -> None:
    with opened(windows) as volume:
        assert volume.read("Windows/System32/drivers/disk.sys", 100) == b"driver"
        assert volume.changed_blocks().runs == ()


def test_case_does_not_matter_and_is_kept(windows: Path) -> None:
    with changed(windows) as volume:
        assert volume.spelling("WINDOWS/system32/New/file") == "Windows/System32/New/file"
        assert volume.entry("windows/SYSTEM32").is_folder
        volume.write("windows/SYSTEM32/CONFIG/system", b"new")
    assert seen_by_dissect(windows)["Windows/System32/config/SYSTEM"] == digest(b"new")


def test_the_tree_works_on_ntfs(windows: Path) -> None:
    with changed(windows) as volume:
        tree = GuestTree({"/": NtfsRoot(volume)})
        assert tree.canonical("/windows/SYSTEM32/new.txt") == "/Windows/System32/new.txt"
        assert tree.listdir("/windows/system32") == ("config", "drivers")
        tree.write_text("/windows/SYSTEM32/new.txt", "text", fix="test", summary="made")
        tree.write_bytes("/Windows/made/deep/file", b"\0", fix="test", summary="made")
        tree.remove("/windows/system32/drivers/disk.sys", fix="test", summary="removed")
        assert [change.path for change in tree.commit()] == [
            "/Windows/System32/new.txt",
            "/Windows/made/deep/file",
            "/Windows/System32/drivers/disk.sys",
        ]
    seen = seen_by_dissect(windows)
    assert seen["Windows/System32/new.txt"] == digest(b"text") and seen["Windows/made/deep/file"] == digest(b"\0")
    assert "Windows/System32/drivers/disk.sys" not in seen


def test_paths_that_do_not_exist(windows: Path) -> None:
    with opened(windows, read_only=True) as volume:
        for path, number in (
            ("nothing", errno.ENOENT),
            ("Windows/System32/drivers/disk.sys/below", errno.ENOTDIR),
            ("$MFT", errno.ENOENT),
            ("$Extend/$Quota", errno.ENOENT),
        ):
            with pytest.raises(OSError) as failure:  # noqa: PT011 - the number is compared
                volume.entry(path)
            assert failure.value.errno == number
        with pytest.raises(IsADirectoryError):
            volume.read("Windows", 10)
        with pytest.raises(OSError) as failure:  # noqa: PT011
            volume.read("Windows/System32/config/SYSTEM", 10)
        assert failure.value.errno == errno.EFBIG


SECURITY = struct.pack("<BBHIIII", 1, 0, 0x8004, 20, 36, 0, 52) + b"".join(
    (
        bytes.fromhex("01020000000000052000000020020000"),  # owner: Administrators
        bytes.fromhex("01020000000000052000000020020000"),
        struct.pack("<BBHHH", 2, 0, 32, 1, 0),
        struct.pack("<BBHI", 0, 0, 24, 0x001200A9) + bytes.fromhex("01020000000000052000000021020000"),
    )
)
"""A security descriptor: Users may read and execute."""
JUNCTION = (
    struct.pack("<IHHHHHH", 0xA0000003, 8 + 20, 0, 0, 14, 16, 2) + "\\??\\C:\\".encode("utf-16-le")[:14] + bytes(6)
)
COMPRESSED_FOLDER, ENCRYPTED = 0x0810, 0x4000
CLUSTER, RECORD = 4096, 1024
FLAGS = 112
"""Offset of the file attributes in the MFT record of a small file: the standard information comes first."""


def set_attribute(path: Path, name: str, value: bytes) -> None:
    """One of the attributes by which ntfs-3g shows what POSIX has no names for."""
    os.setxattr(path, f"system.ntfs_{name}", value)


def encrypt(disk: Path, record: int) -> None:
    """Set the attribute of EFS, which no tool here can."""
    with disk.open("r+b") as file:
        file.seek(48)
        at = int.from_bytes(file.read(8), "little") * CLUSTER + record * RECORD
        file.seek(at)
        assert file.read(4) == b"FILE"
        file.seek(at + FLAGS)
        flags = int.from_bytes(file.read(4), "little")
        file.seek(at + FLAGS)
        file.write((flags | ENCRYPTED).to_bytes(4, "little"))


@pytest.fixture
def prepared(windows: Path, tmp_path: Path) -> Path:
    """With what another writer can make: the FUSE server of ntfs-3g."""
    with mounted(windows, tmp_path / "rw", writable=True) as top:
        (top / "packed").mkdir()
        set_attribute(top / "packed", "attrib", COMPRESSED_FOLDER.to_bytes(4, "little"))
        (top / "packed/file").write_bytes(b"compressed " * 100_000)
        (top / "holes").touch()
        os.truncate(top / "holes", 8 * MIB)
        (top / "secret").write_bytes(b"secret")
        (top / "junction").mkdir()
        set_attribute(top / "junction", "reparse_data", JUNCTION)
        set_attribute(top / "Windows/System32/drivers/disk.sys", "acl", SECURITY)
        secret = (top / "secret").stat().st_ino
    encrypt(windows, secret)
    return windows


def test_a_new_file_has_the_security_of_its_neighbour(prepared: Path) -> None:
    drivers = "Windows/System32/drivers"
    with changed(prepared) as volume:
        volume.write(f"{drivers}/viostor.sys", b"driver")
        volume.write("Windows/other.sys", b"driver", like=f"{drivers}/disk.sys")
        volume.write(f"{drivers}/disk.sys", b"replaced")
    with opened(prepared, read_only=True) as volume:
        wanted = volume.entry(f"{drivers}/disk.sys").security_id
        assert wanted != 0 and wanted != volume.entry("Windows/System32/config/SYSTEM").security_id
        for path in (f"{drivers}/viostor.sys", "Windows/other.sys"):
            assert volume.entry(path).security_id == wanted


def test_a_neighbour_without_a_security_identifier_is_no_model(prepared: Path) -> None:
    """A Linux has made it, for example: everybody could replace the new driver as well."""
    drivers = "Windows/System32/drivers"
    with changed(prepared) as volume:
        volume.write(f"{drivers}/0.sys", b"open", like="Windows/System32/config/SYSTEM")
    with changed(prepared) as volume:
        assert volume.entry(f"{drivers}/0.sys").security_id == 0
        volume.write(f"{drivers}/viostor.sys", b"driver")
    with opened(prepared, read_only=True) as volume:
        assert (
            volume.entry(f"{drivers}/viostor.sys").security_id == volume.entry(f"{drivers}/disk.sys").security_id != 0
        )


def test_a_compressed_file_is_rewritten(prepared: Path, tmp_path: Path) -> None:
    data = b"other " * 300_000
    with changed(prepared) as volume:
        assert volume.read("packed/file", 2 * MIB) == b"compressed " * 100_000
        volume.write("packed/file", data)
        volume.write("packed/new", data)
    for seen in (seen_by_dissect(prepared), seen_by_fuse(prepared, tmp_path / "mnt", below="packed")):
        assert (seen["packed/file"], seen["packed/new"]) == (digest(data), digest(data))
    assert is_sound(prepared)


def test_a_reparse_point_is_never_followed(prepared: Path) -> None:
    with opened(prepared) as volume:
        assert volume.entry("junction").reparse_tag == 0xA0000003
        tree = GuestTree({"/": NtfsRoot(volume)})
        assert tree.exists("/junction") and not tree.is_dir("/junction") and not tree.is_file("/junction")
        assert tree.link_target("/junction") is None and tree.listdir("/junction") == ()
        for attempt in (
            lambda: volume.names("junction"),
            lambda: volume.entry("junction/Windows"),
            lambda: volume.read("junction", 100),
            lambda: volume.write("junction", b""),
            lambda: volume.write("junction/file", b""),
            lambda: volume.mkdir("junction/folder"),
        ):
            with pytest.raises(OSError) as failure:  # noqa: PT011 - the number is compared
                attempt()
            assert failure.value.errno == errno.ELOOP


@pytest.mark.parametrize(("path", "number"), [("holes", errno.EOPNOTSUPP), ("secret", errno.EACCES)])
def test_sparse_and_encrypted_files_are_not_written(prepared: Path, path: str, number: int) -> None:
    with opened(prepared) as volume:
        with pytest.raises(OSError) as failure:  # noqa: PT011 - the number is compared
            volume.write(path, b"data")
        assert failure.value.errno == number
        with pytest.raises(MigrationFailed) as incomplete:
            volume.changed_blocks()
        assert incomplete.value.code == "guest-write-failed"


def test_an_encrypted_file_is_not_read(prepared: Path) -> None:
    with opened(prepared) as volume, pytest.raises(PermissionError):
        volume.read("secret", 100)


def test_a_full_volume_changes_nothing(windows: Path) -> None:
    with opened(windows) as volume:
        tree = GuestTree({"/": NtfsRoot(volume)})
        assert 40 * MIB < NtfsRoot(volume).space().bytes < 64 * MIB
        tree.write_bytes("/big", bytes(1) + os.urandom(70 * MIB), fix="test", summary="too big")
        with pytest.raises(MigrationFailed) as failure:
            tree.commit()
        assert failure.value.code == "guest-full"


def test_a_killed_process_is_named_and_the_image_stays(windows: Path) -> None:
    before = windows.read_bytes()
    with opened(windows) as volume:
        volume.write("new", b"new")
        os.kill(volume._tool._process.pid, signal.SIGKILL)
        with pytest.raises(MigrationFailed) as failure:
            volume.changed_blocks()
    assert (failure.value.code, failure.value.kind) == ("tool-killed", Kind.RETRY)
    assert windows.read_bytes() == before


def test_a_volume_that_is_no_ntfs(tmp_path: Path) -> None:
    empty = tmp_path / "empty.img"
    empty.write_bytes(bytes(MIB))
    with pytest.raises(MigrationFailed) as failure, opened(empty):
        pass
    assert failure.value.code == "ntfs-damaged"


def test_only_changes_count_for_the_limit_of_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large hive is written whole, and few of its blocks are new."""
    path, hive = make_ntfs(tmp_path / "volume"), bytearray(os.urandom(3 * MIB))
    with changed(path) as volume:
        volume.write("SOFTWARE", bytes(hive))
    child = tmp_path / "child.py"
    child.write_text(tool.CHILD.read_text().replace("CHANGED_LIMIT = 256 << 20", "CHANGED_LIMIT = 1 << 20"))
    monkeypatch.setattr(tool, "CHILD", child)
    hive[2 * MIB : 2 * MIB + 8] = b"8 bytes!"
    with changed(path) as volume:
        volume.write("SOFTWARE", bytes(hive))
    with opened(path) as volume:
        assert volume.read("SOFTWARE", 4 * MIB) == hive
        with pytest.raises(MigrationFailed) as failure:
            volume.write("SOFTWARE", os.urandom(3 * MIB))
    assert failure.value.code == "ntfs-change-limit"
    assert is_sound(path)


def test_the_library_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host with another version of it."""
    child = tmp_path / "child.py"
    child.write_text(tool.CHILD.read_text().replace("libntfs-3g.so.89", "libntfs-3g.so.88").replace("so.91", "so.90"))
    tool.check_library()
    monkeypatch.setattr(tool, "CHILD", child)
    with pytest.raises(BrokenInstallation) as failure:
        tool.check_library()
    assert failure.value.code == "ntfs-library-missing"
    assert all(name in failure.value.message for name in ("libntfs-3g.so.88", "libntfs-3g.so.90"))
    assert "installed: libntfs-3g.so.89" in failure.value.message
