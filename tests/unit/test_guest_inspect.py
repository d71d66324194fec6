from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.linux.inspect import Kernel, inspect_system
from hyper2kvmd.guest.linux.root_search import LinuxRoot, find_root
from hyper2kvmd.model.disks import Volume
from hyper2kvmd.progress import Event, Warned
from hyper2kvmd.stages.repair import repair_disks
from tests.support.guest_on_disk import (
    FolderAccess,
    guest_disks,
    layout,
    logical,
    migration,
    partition,
    put,
    repaired,
    tree_of,
)


def linux(folder: Path) -> Path:
    put(folder, "etc/os-release", 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    (folder / "usr").mkdir()
    return folder


def test_root_among_others(tmp_path: Path) -> None:
    linux(tmp_path / "root")
    put(tmp_path / "boot", "grub/grub.cfg", "")
    put(tmp_path / "data", "usr/etc", "")
    volumes = (partition(1), partition(2, "xfs"), logical("vg", "root"), partition(3, "swap"))
    folders = {"partition 1": tmp_path / "boot", "partition 2": tmp_path / "data", "vg/root": tmp_path / "root"}
    access = FolderAccess(folders)
    found = find_root(access, layout(*volumes))
    assert found == LinuxRoot(volumes[2])
    assert all(read_only for _, read_only in access.mounted)


def test_several_roots_are_named(tmp_path: Path) -> None:
    folders = {"partition 1": linux(tmp_path / "a"), "partition 2": linux(tmp_path / "b")}
    with pytest.raises(MigrationFailed, match=r"several Linux systems, .*: partition 1 \(ext4\), partition 2 \(xfs\)"):
        find_root(FolderAccess(folders), layout(partition(1), partition(2, "xfs")))


@pytest.mark.parametrize("name", ["@", "root", "@rootfs"])
def test_btrfs_subvolume(tmp_path: Path, name: str) -> None:
    linux(tmp_path / name)
    (tmp_path / "@home").mkdir()
    found = find_root(FolderAccess({"partition 1": tmp_path}), layout(partition(1, "btrfs")))
    assert found is not None and found.subvolume == name


def test_a_folder_named_like_a_subvolume_is_nothing_on_ext4(tmp_path: Path) -> None:
    linux(tmp_path / "root")
    assert find_root(FolderAccess({"partition 1": tmp_path}), layout(partition(1))) is None


def test_a_data_disk_is_none(tmp_path: Path) -> None:
    guest = repaired({"partition 1": tmp_path}, layout(partition(1)), migration())
    assert guest.family == "none" and "no operating system" in guest.warnings[0]


@pytest.mark.parametrize(
    ("volume", "word"),
    [
        (Volume(kind="md", name="md 0", obstacle="it is degraded"), "md 0: it is degraded"),
        (partition(2, "zfs_member"), "zfs_member"),
        (logical("vg", "root").with_changes(stretches=(), obstacle="striped over 2 disks"), "striped"),
    ],
)
def test_a_root_that_cannot_be_reached_is_unsupported(tmp_path: Path, volume: Volume, word: str) -> None:
    with pytest.raises(MigrationFailed, match=word) as caught:
        repaired({"partition 1": tmp_path}, layout(partition(1), volume), migration())
    assert caught.value.code == "guest-root-missing" and "seen: partition 1 (ext4)" in caught.value.message


@pytest.mark.parametrize(("incomplete", "hint"), [(True, "list them in vmdk:"), (False, "by hand")])
def test_the_remedy_for_a_volume_with_a_missing_disk(incomplete: bool, hint: str, tmp_path: Path) -> None:
    volume = logical("vg", "root").with_changes(stretches=(), obstacle="a part of it", incomplete=incomplete)
    with pytest.raises(MigrationFailed) as caught:
        repaired({"partition 1": tmp_path}, layout(partition(1), volume), migration())
    assert hint in caught.value.hint


def test_a_volume_that_no_host_mounts_is_a_concern_of_the_plan_only(tmp_path: Path) -> None:
    linux(tmp_path)
    spanning = partition(2, "btrfs").with_changes(multi_device=True)
    found = find_root(FolderAccess({"partition 1": tmp_path}), layout(partition(1), spanning))
    assert found is not None and found.troubles == ()


def test_a_hibernated_guest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationFailed) as caught:
        find_root(FolderAccess({}), layout(partition(1), partition(2, "swsuspend")))
    assert caught.value.code == "guest-hibernated"


def test_a_volume_that_does_not_mount_is_an_error_only_without_a_root(tmp_path: Path) -> None:
    linux(tmp_path)
    both = layout(partition(1), partition(2))
    found = find_root(FolderAccess({"partition 1": tmp_path}), both)
    assert found is not None and "partition 2 cannot be mounted" in found.troubles[0]
    with pytest.raises(MigrationFailed) as caught:
        find_root(FolderAccess({}), both)
    assert caught.value.code == "mount-failed"


class FullStorage(FolderAccess):
    """A host on which the replay of a journal fails at its end."""

    @contextmanager
    def mount(self, volume: Volume, *, read_only: bool = False) -> Iterator[int]:
        with super().mount(volume, read_only=read_only) as handle:
            yield handle
        raise MigrationFailed("image-write-failed", f"{volume.name}: no space", hint="make space", kind=Kind.RETRY)


def test_a_failure_of_the_host_is_no_trouble_of_the_guest(tmp_path: Path) -> None:
    linux(tmp_path)
    with pytest.raises(MigrationFailed) as caught:
        find_root(FullStorage({"partition 1": tmp_path}), layout(partition(1)))
    assert caught.value.code == "image-write-failed"


class Dirty(FolderAccess):
    """Volumes that were in use when their disk was copied."""

    @property
    def replayed(self) -> tuple[Volume, ...]:
        return tuple(partition(1) for _ in self.mounted[:1])


@pytest.mark.parametrize("family", ["linux", "none"])
def test_a_replayed_journal_is_warned_of(tmp_path: Path, family: str) -> None:
    if family == "linux":
        linux(tmp_path)
    events: list[Event] = []
    asked = migration(regen_initramfs=False)
    guest = repair_disks(guest_disks(Dirty({"partition 1": tmp_path}), layout(partition(1)), asked, events=events))
    assert guest.family == family
    assert guest.warnings[0].startswith("partition 1 (ext4): its journal was replayed")
    assert Warned(message=guest.warnings[0]) in events


@pytest.mark.parametrize(
    ("machine", "order", "name"),
    [(62, "<", "x86_64"), (183, "<", "aarch64"), (3, "<", "i686"), (22, ">", "s390x"), (9999, "<", "ELF machine 9999")],
)
def test_architecture_from_the_elf_header(tmp_path: Path, machine: int, order: str, name: str) -> None:
    header = b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + bytes(10) + struct.pack(order + "HH", 3, machine)
    put(linux(tmp_path), "usr/bin/dash", header)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "usr/bin/sh").symlink_to("dash")
    with tree_of(tmp_path) as tree:
        assert inspect_system(tree).architecture == name


def test_architecture_of_this_machines_own_shell(tmp_path: Path) -> None:
    (linux(tmp_path) / "bin").mkdir()
    shutil.copy("/bin/sh", tmp_path / "bin/sh")
    with tree_of(tmp_path) as tree:
        assert inspect_system(tree).architecture in ("x86_64", "aarch64")


@pytest.mark.parametrize(
    ("image", "version", "initrd"),
    [
        ("/boot/vmlinuz-6.1.0-18-amd64", "6.1.0-18-amd64", "/boot/initrd.img-6.1.0-18-amd64"),
        ("/boot/vmlinuz-5.14.0-1.el9", "5.14.0-1.el9", "/boot/initramfs-5.14.0-1.el9.img"),
        ("/boot/vmlinuz-5.14.21-default", "5.14.21-default", "/boot/initrd-5.14.21-default"),
        ("/boot/vmlinuz-linux-zen", "6.6.31-1-zen1-1-zen", "/boot/initramfs-linux-zen.img"),
        ("/boot/vmlinuz-virt", "6.6.31-0-virt", "/boot/initramfs-virt"),
        ("/efi/0123abcd/6.1.0/linux", "6.1.0", "/efi/0123abcd/6.1.0/initrd.img-6.1.0"),
    ],
)
def test_kernels_and_their_initrds(tmp_path: Path, image: str, version: str, initrd: str) -> None:
    put(tmp_path, image, "")
    put(tmp_path, initrd, "")
    put(linux(tmp_path), f"usr/lib/modules/{version}/modules.dep", "")
    if version.endswith("-zen"):
        put(tmp_path, f"usr/lib/modules/{version}/pkgbase", "linux-zen\n")
    (tmp_path / "lib").symlink_to("usr/lib")
    with tree_of(tmp_path) as tree:
        (kernel,) = inspect_system(tree).kernels
    assert kernel == Kernel(version, f"/usr/lib/modules/{version}", image, (initrd,))


def test_newest_kernel_comes_last(tmp_path: Path) -> None:
    for version in ("6.1.0-9-amd64", "6.1.0-18-amd64", "5.10.0-30-amd64"):
        put(tmp_path, f"lib/modules/{version}/modules.dep", "")
    with tree_of(linux(tmp_path)) as tree:
        assert [kernel.version for kernel in inspect_system(tree).kernels] == [
            "5.10.0-30-amd64",
            "6.1.0-9-amd64",
            "6.1.0-18-amd64",
        ]


@pytest.mark.parametrize(
    ("path", "text", "os_id", "name"),
    [
        ("etc/redhat-release", "CentOS release 6.10 (Final)\n", "centos", "CentOS release 6.10 (Final)"),
        (
            "etc/redhat-release",
            "Red Hat Enterprise Linux Server release 6.9 (Santiago)\n",
            "rhel",
            "Red Hat Enterprise Linux",
        ),
        ("etc/redhat-release", "Scientific Linux release 6.8 (Carbon)\n", "scientific", "Scientific Linux release 6.8"),
        (
            "etc/SuSE-release",
            "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4\n",
            "sles",
            "SUSE Linux",
        ),
        ("etc/SuSE-release", "openSUSE 13.1 (x86_64)\n", "opensuse", "openSUSE 13.1 (x86_64)"),
        ("etc/debian_version", "6.0.10\n", "debian", "Debian 6.0.10"),
        ("etc/alpine-release", "3.19.1\n", "alpine", "Alpine Linux 3.19.1"),
        (
            "etc/lsb-release",
            'DISTRIB_ID=Ubuntu\nDISTRIB_DESCRIPTION="Ubuntu 10.04.4 LTS"\n',
            "ubuntu",
            "Ubuntu 10.04.4 LTS",
        ),
        ("etc/os-release", "NAME=Plain\nVERSION='7 (x)'\n", "linux", "Plain 7 (x)"),
        ("usr/lib/os-release", "# x\n\nID='void'\n", "void", "Linux"),
        ("etc/os-release", 'ID="sles"\r\nPRETTY_NAME="SUSE \x1b[31mLinux"\r\n', "sles", "SUSE \ufffd[31mLinux"),
    ],
)
def test_what_names_a_system(tmp_path: Path, path: str, text: str, os_id: str, name: str) -> None:
    put(tmp_path, path, text)
    with tree_of(tmp_path) as tree:
        system = inspect_system(tree)
    assert system.os_id == os_id and system.os_name.startswith(name)


def test_oracle_says_red_hat_as_well(tmp_path: Path) -> None:
    put(tmp_path, "etc/redhat-release", "Red Hat Enterprise Linux Server release 6.10 (Santiago)\n")
    put(tmp_path, "etc/oracle-release", "Oracle Linux Server release 6.10\n")
    with tree_of(tmp_path) as tree:
        assert (inspect_system(tree).os_id, inspect_system(tree).os_name) == ("ol", "Oracle Linux Server release 6.10")


def test_hostname_of_old_systems(tmp_path: Path) -> None:
    put(tmp_path, "etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=old.example.com\n")
    with tree_of(tmp_path) as tree:
        assert inspect_system(tree).hostname == "old.example.com"


@pytest.mark.parametrize(
    ("kind", "system"),
    [("516e7cb6-6ecf-11d6-8ff8-00022d09712b", "FreeBSD"), ("a6", "OpenBSD"), ("fb", "VMware ESXi"), ("bf", "Solaris")],
)
def test_systems_of_other_makes_are_named(kind: str, system: str) -> None:
    disk = layout(partition(1, "unknown"), partition(2, "unknown", parttype=kind))
    with pytest.raises(MigrationFailed, match=f"partition 2 is a partition of {system}; seen: partition 1") as caught:
        repaired({}, disk, migration())
    assert caught.value.code == "guest-not-linux"


def test_an_encrypted_windows_is_refused() -> None:
    with pytest.raises(MigrationFailed) as caught:
        repaired({}, layout(partition(1, "BitLocker")), migration())
    assert caught.value.code == "windows-bitlocker"


def test_an_overlay_over_etc_is_refused_by_name(tmp_path: Path) -> None:
    """Files of its upper layer would hide the repaired ones."""
    linux(tmp_path)
    put(tmp_path, "etc/fstab", "overlay /etc overlay defaults,upperdir=/sysroot/var/lib/overlay/1/etc 0 0\n")
    with pytest.raises(MigrationFailed, match="upper layer") as caught:
        repaired({"partition 1": tmp_path}, layout(partition(1)), migration())
    assert caught.value.code == "guest-etc-overlay"
