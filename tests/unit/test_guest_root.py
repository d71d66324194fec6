from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.files.root import ConfinedRoot
from tests.support.guest_on_disk import deny_labels, put


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return put(tmp_path, "host/secret", "the host's own")


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    folder = tmp_path / "guest"
    (folder / "etc").mkdir(parents=True)
    return folder


@pytest.fixture
def root(guest: Path) -> Iterator[ConfinedRoot]:
    handle = os.open(guest, os.O_PATH)
    yield ConfinedRoot(handle)
    os.close(handle)


def test_reads_and_lists(root: ConfinedRoot, guest: Path) -> None:
    put(guest, "etc/hostname", "web01\n")
    put(guest, "etc/fstab", "")
    assert root.read("/etc/hostname", 100) == b"web01\n"
    assert root.listdir("/etc") == ("fstab", "hostname")
    assert root.exists("/etc/fstab") and not root.exists("/etc/nothing") and not root.exists("/etc/fstab/below")


def test_absolute_link_to_the_host_leads_nowhere(root: ConfinedRoot, guest: Path, secret: Path) -> None:
    (guest / "etc/fstab").symlink_to(secret)
    with pytest.raises(FileNotFoundError):
        root.read("/etc/fstab", 100)


def test_relative_link_to_the_host_leads_nowhere(root: ConfinedRoot, guest: Path, secret: Path) -> None:
    (guest / "etc/fstab").symlink_to(os.path.relpath(secret, guest / "etc"))
    assert (guest / "etc/fstab").read_text() == "the host's own"
    with pytest.raises(FileNotFoundError):
        root.read("/etc/fstab", 100)
    with pytest.raises(FileNotFoundError):
        root.read(f"/../../../..{secret}", 100)


def test_a_folder_that_is_a_link_to_the_hosts_root_is_the_guests_root(
    root: ConfinedRoot, guest: Path, secret: Path
) -> None:
    (guest / "etc").rmdir()
    (guest / "etc").symlink_to("/")
    root.replace("/etc/fstab", b"new")
    assert (guest / "fstab").read_bytes() == b"new"
    with pytest.raises(FileNotFoundError):
        root.replace(f"/etc{secret.parent}/fstab", b"new")


def test_absolute_link_inside_the_guest_works(root: ConfinedRoot, guest: Path) -> None:
    put(guest, "usr/lib/os-release", "ID=debian\n")
    (guest / "etc/os-release").symlink_to("/usr/lib/os-release")
    assert root.read("/etc/os-release", 100) == b"ID=debian\n"


def test_magic_links_are_refused(root: ConfinedRoot, guest: Path, secret: Path) -> None:
    """A guest's folder that is the host's /proc does not exist in practice; the flag is our second lock."""
    handle = os.open("/proc", os.O_PATH)
    try:
        with secret.open() as opened, pytest.raises(OSError, match="symbolic links") as caught:
            ConfinedRoot(handle).read(f"/self/fd/{opened.fileno()}", 100)
    finally:
        os.close(handle)
    assert caught.value.errno == errno.ELOOP


def test_a_loop_of_links_is_an_error_and_does_not_exist(root: ConfinedRoot, guest: Path) -> None:
    (guest / "etc/a").symlink_to("b")
    (guest / "etc/b").symlink_to("a")
    assert not root.exists("/etc/a")
    with pytest.raises(OSError, match="symbolic links"):
        root.read("/etc/a", 100)


@pytest.mark.root
def test_fifo_socket_and_device_never_block(root: ConfinedRoot, guest: Path) -> None:
    os.mkfifo(guest / "etc/fstab")
    os.mknod(guest / "etc/zero", 0o20666, os.makedev(1, 5))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(guest / "etc/sock"))
        for name in ("fstab", "zero", "sock"):
            with pytest.raises(MigrationFailed, match="not a regular file") as caught:
                root.read(f"/etc/{name}", 100)
            assert caught.value.code == "guest-file-odd"
            with pytest.raises(MigrationFailed, match="not a regular file"):
                root.replace(f"/etc/{name}", b"")


def test_a_huge_file_is_refused(root: ConfinedRoot, guest: Path) -> None:
    with (guest / "etc/fstab").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(MigrationFailed, match="larger than 4096"):
        root.read("/etc/fstab", 4096)


@pytest.mark.root
def test_replace_keeps_owner_mode_and_attributes(root: ConfinedRoot, guest: Path) -> None:
    path = put(guest, "etc/fstab", "old")
    os.chown(path, 12, 34)
    path.chmod(0o4640)
    os.setxattr(path, "user.note", b"kept")
    assert root.replace("/etc/fstab", b"new")
    status = path.stat()
    assert (path.read_bytes(), status.st_uid, status.st_gid, status.st_mode & 0o7777) == (b"new", 12, 34, 0o4640)
    assert os.getxattr(path, "user.note") == b"kept"
    assert root.listdir("/etc") == ("fstab",)


def test_replace_leaves_other_hard_links_alone(root: ConfinedRoot, guest: Path) -> None:
    path = put(guest, "etc/fstab", "old")
    os.link(path, guest / "other")
    root.replace("/etc/fstab", b"new")
    assert (guest / "other").read_text() == "old"


def test_replace_refuses_a_link(root: ConfinedRoot, guest: Path) -> None:
    put(guest, "etc/real", "old")
    (guest / "etc/fstab").symlink_to("real")
    with pytest.raises(OSError, match="symbolic links"):
        root.replace("/etc/fstab", b"new")
    assert (guest / "etc/real").read_text() == "old"
    assert root.listdir("/etc") == ("fstab", "real")


def test_new_file_gets_its_mode(root: ConfinedRoot, guest: Path) -> None:
    root.replace("/etc/new", b"x", new_mode=0o640)
    assert (guest / "etc/new").stat().st_mode & 0o7777 == 0o640


def test_append(root: ConfinedRoot, guest: Path) -> None:
    path = put(guest, "boot/initrd", b"a" * 100_000)
    path.chmod(0o600)
    before = path.stat().st_ino
    root.insert("/boot/initrd", 100_000, b"tail")
    assert path.read_bytes() == b"a" * 100_000 + b"tail"
    assert path.stat().st_mode & 0o7777 == 0o600 and path.stat().st_ino != before
    assert root.listdir("/boot") == ("initrd",)


@pytest.mark.parametrize("at", [0, 1, 4096, 99_999])
@pytest.mark.parametrize("labels_denied", [False, True])
def test_insert(
    root: ConfinedRoot, guest: Path, monkeypatch: pytest.MonkeyPatch, at: int, *, labels_denied: bool
) -> None:
    before = os.urandom(100_000)
    path = put(guest, "boot/initrd", before)
    if labels_denied:
        os.setxattr(path, "security.selinux", b"system_u:object_r:boot_t:s0\0")
        deny_labels(monkeypatch)
    root.insert("/boot/initrd", at, b"between")
    assert path.read_bytes() == before[:at] + b"between" + before[at:]
    assert root.listdir("/boot") == ("initrd",)


def test_links_folders_and_removal(root: ConfinedRoot, guest: Path) -> None:
    root.mkdir("/etc/systemd")
    root.symlink("/etc/systemd/x.service", "/dev/null")
    assert root.readlink("/etc/systemd/x.service") == "/dev/null"
    root.unlink("/etc/systemd/x.service")
    assert root.listdir("/etc/systemd") == ()
    root.sync()


def test_folder_is_a_root_of_its_own(root: ConfinedRoot, guest: Path) -> None:
    put(guest, "secret", "top level")
    put(guest, "@/etc/hostname", "web01")
    (guest / "@/etc/up").symlink_to("../../secret")
    with root.folder("@") as inner:
        assert inner.read("/etc/hostname", 100) == b"web01"
        assert not inner.exists("/etc/up")
