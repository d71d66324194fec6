from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from tests.support.guest_on_disk import deny_labels, files_below, put, tree_of


def test_nothing_is_written_before_commit(tmp_path: Path) -> None:
    put(tmp_path, "etc/fstab", "a\n")
    put(tmp_path, "etc/old", "x")
    before = files_below(tmp_path)
    with tree_of(tmp_path) as tree:
        tree.write_text("/etc/fstab", "b\n", fix="f", summary="s")
        tree.write_text("/etc/new/deep/file", "new\n", fix="f", summary="s", mode=0o600)
        tree.remove("/etc/old", fix="f", summary="s")
        tree.symlink("/etc/link", "/dev/null", fix="f", summary="s")
        assert files_below(tmp_path) == before
        assert tree.read_text("/etc/fstab") == "b\n"
        assert tree.listdir("/etc") == ("fstab", "link", "new")
        assert tree.listdir("/etc/new") == ("deep",)
        assert not tree.exists("/etc/old") and tree.is_dir("/etc/new/deep")
        assert tree.link_target("/etc/link") == "/dev/null"
        promised = tree.changes
        assert tree.commit() == promised
        assert tree.commit() == ()
    assert files_below(tmp_path) == {
        "etc/fstab": b"b\n",
        "etc/new/deep/file": b"new\n",
        "etc/link": "-> /dev/null",
    }
    assert (tmp_path / "etc/new/deep/file").stat().st_mode & 0o777 == 0o600


def test_a_file_has_its_content_with_staged_edits(tmp_path: Path) -> None:
    put(tmp_path, "long", "x" * 100)
    with tree_of(tmp_path) as tree:
        assert not tree.has_content("/long", b"x") and tree.has_content("/long", b"x" * 100)
        assert not tree.has_content("/new", b"")
        tree.write_bytes("/new", b"data", fix="f", summary="s")
        assert tree.has_content("/new", b"data") and not tree.has_content("/new", b"date")
        assert tree.new_contents == {"/new": b"data"}


def test_changes_are_diffs_by_fix(tmp_path: Path) -> None:
    put(tmp_path, "etc/fstab", "one\ntwo\n")
    with tree_of(tmp_path) as tree:
        tree.write_text("/etc/fstab", "one\n2\n", fix="first", summary="two is now 2")
        tree.write_text("/etc/fstab", "1\n2\n", fix="second", summary="one is now 1")
        tree.write_text("/etc/fstab", "1\n2\n", fix="third", summary="nothing")
        first, second = tree.changes
    assert (first.fix, first.path) == ("first", "/etc/fstab")
    assert "-two\n+2" in first.diff and "-one" not in first.diff
    assert "-one\n+1" in second.diff and "--- /etc/fstab" in second.diff


def test_restore(tmp_path: Path) -> None:
    put(tmp_path, "etc/fstab", "old\n")
    with tree_of(tmp_path) as tree:
        tree.write_text("/etc/a", "kept\n", fix="f", summary="s")
        mark = tree.mark()
        tree.write_text("/etc/fstab", "new\n", fix="f", summary="s")
        tree.restore(mark)
        assert tree.read_text("/etc/fstab") == "old\n"
        assert [change.path for change in tree.commit()] == ["/etc/a"]


def test_links_lead_through_the_guest_across_mounts(tmp_path: Path) -> None:
    root, boot = tmp_path / "root", tmp_path / "boot"
    put(boot, "grub2/grub.cfg", "on /boot\n")
    put(root, "boot/grub2/grub.cfg", "hidden below the mount\n")
    (root / "etc").mkdir()
    (root / "etc/grub2.cfg").symlink_to("../boot/grub2/grub.cfg")
    (root / "etc/absolute.cfg").symlink_to("/boot/grub2/grub.cfg")
    (boot / "up").symlink_to("../etc")
    with tree_of(root, boot=boot) as tree:
        assert tree.read_text("/etc/grub2.cfg") == "on /boot\n"
        assert tree.canonical("/etc/absolute.cfg") == "/boot/grub2/grub.cfg"
        assert tree.canonical("/boot/up/grub2.cfg") == "/boot/grub2/grub.cfg"
        tree.write_text("/etc/absolute.cfg", "new\n", fix="f", summary="s")
        tree.commit()
    assert (boot / "grub2/grub.cfg").read_text() == "new\n"
    assert (root / "boot/grub2/grub.cfg").read_text() == "hidden below the mount\n"
    assert (root / "etc/absolute.cfg").is_symlink()


def test_links_out_of_the_guest_end_inside_it(tmp_path: Path) -> None:
    secret = put(tmp_path, "secret", "the host's own")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/fstab").symlink_to(secret)
    (root / "etc/up").symlink_to("../../secret")
    (root / "etc/loop").symlink_to("loop")
    with tree_of(root) as tree:
        assert not any(tree.exists(f"/etc/{name}") for name in ("fstab", "up", "loop"))
        assert tree.text_or_empty("/etc/fstab") == ""
        tree.write_text("/etc/up", "new", fix="f", summary="s")
        tree.commit()
    assert secret.read_text() == "the host's own"
    assert (root / "secret").read_text() == "new"


def test_odd_bytes_survive_and_reports_stay_readable(tmp_path: Path) -> None:
    put(tmp_path, "etc/motd", b"caf\xe9 \x1b[31m\r\nline\n")
    with tree_of(tmp_path) as tree:
        tree.write_text("/etc/motd", tree.read_text("/etc/motd") + "more\n", fix="f", summary="s")
        (change,) = tree.commit()
    assert (tmp_path / "etc/motd").read_bytes() == b"caf\xe9 \x1b[31m\r\nline\nmore\n"
    assert "\x1b" not in json.loads(change.model_dump_json())["diff"]


def test_glob(tmp_path: Path) -> None:
    for name in ("a.conf", "b.conf", ".hidden.conf", "c.txt"):
        put(tmp_path, f"boot/loader/entries/{name}", "")
    with tree_of(tmp_path) as tree:
        assert tree.glob("/boot/*/entries/*.conf") == ("/boot/loader/entries/a.conf", "/boot/loader/entries/b.conf")
        assert tree.glob("/nowhere/*.conf") == ()


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    put(tmp_path, "etc/fstab", "old\n")
    with tree_of(tmp_path) as tree:
        tree.write_text("/etc/fstab", "new\n", fix="f", summary="s")
        shutil.rmtree(tmp_path / "etc")
        put(tmp_path, "etc", "a file now")
        with pytest.raises(MigrationFailed, match="/etc/fstab could not be written: Not a directory") as caught:
            tree.commit()
    assert caught.value.code == "guest-write-failed"


def test_append(tmp_path: Path) -> None:
    put(tmp_path, "boot/initrd", b"old")
    with tree_of(tmp_path) as tree:
        tree.insert("/boot/initrd", 3, b"new", fix="f", summary="s")
        assert tree.read_bytes("/boot/initrd") == b"oldnew"
        (change,) = tree.commit()
    assert (tmp_path / "boot/initrd").read_bytes() == b"oldnew"
    assert change.diff == "3 bytes appended: s"


def test_files_keep_their_selinux_label_and_new_ones_get_their_folders(tmp_path: Path) -> None:
    fstab = put(tmp_path, "etc/fstab", "old\n")
    os.setxattr(fstab, "security.selinux", b"system_u:object_r:fstab_t:s0\0")
    os.setxattr(fstab.parent, "security.selinux", b"system_u:object_r:etc_t:s0\0")
    with tree_of(tmp_path) as tree:
        tree.write_text("/etc/fstab", "new\n", fix="f", summary="s")
        tree.write_text("/etc/created", "new\n", fix="f", summary="s")
        tree.commit()
        assert tree.unlabelled == ()
    assert b"fstab_t" in os.getxattr(fstab, "security.selinux")
    assert b"etc_t" in os.getxattr(tmp_path / "etc/created", "security.selinux")


@pytest.mark.parametrize("after", ["new\n", "shorter or longer, and so on\n"])
def test_a_file_keeps_a_label_that_we_may_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    label = b"system_u:object_r:etc_t:s0\0"
    grub = put(tmp_path, "boot/grub.cfg", "old content\n")
    initrd = put(tmp_path, "boot/initrd", b"old")
    for path in (grub, initrd, grub.parent):
        os.setxattr(path, "security.selinux", label)
    grub.chmod(0o444)
    deny_labels(monkeypatch)
    with tree_of(tmp_path) as tree:
        tree.write_text("/boot/grub.cfg", after, fix="f", summary="s")
        tree.insert("/boot/initrd", 3, b"new", fix="f", summary="s")
        tree.write_text("/boot/created", "new\n", fix="f", summary="s")
        tree.commit()
        assert tree.unlabelled == ("/boot/created",)
    assert grub.read_text() == after and grub.stat().st_mode & 0o7777 == 0o444
    assert initrd.read_bytes() == b"oldnew"
    assert os.getxattr(grub, "security.selinux") == os.getxattr(initrd, "security.selinux") == label
    assert sorted(path.name for path in (tmp_path / "boot").iterdir()) == ["created", "grub.cfg", "initrd"]


@pytest.mark.root
def test_a_folder_of_another_owner_is_told_before_anything_is_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    os.chown(put(tmp_path, "etc/fstab", "old\n").parent, 65534, 65534)
    with tree_of(tmp_path) as tree:
        os.seteuid(12345)
        try:
            with pytest.raises(MigrationFailed, match="the guest's /etc does not belong to root") as caught:
                tree.write_text("/etc/fstab", "new\n", fix="f", summary="s")
        finally:
            os.seteuid(0)
        assert caught.value.code == "guest-file-owner"


@pytest.mark.root
def test_a_file_that_the_mount_cannot_replace_is_told_before_anything_is_written(tmp_path: Path) -> None:
    """An unprivileged user sees an unmapped owner as 65534; the kernel would refuse the rename half way through."""
    tmp_path.chmod(0o755)
    os.chown(put(tmp_path, "etc/fstab", "old\n"), 0, 65534)
    with tree_of(tmp_path) as tree:
        os.seteuid(12345)
        try:
            with pytest.raises(MigrationFailed, match="does not belong to root") as caught:
                tree.write_text("/etc/fstab", "new\n", fix="f", summary="s")
        finally:
            os.seteuid(0)
        assert caught.value.code == "guest-file-owner" and tree.changes == ()
