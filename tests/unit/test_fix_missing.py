"""Devices that are on none of the disks: named in a warning wherever they are, and for the root the job fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.guest import Guest
from tests.support.guest_on_disk import ROOT_UUID, SWAP_UUID, migration, partition, put, repaired, simple_layout

GONE = "33333333-1111-4111-8111-111111111111"


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    put(tmp_path, "etc/os-release", "ID=debian\n")
    (tmp_path / "usr").mkdir()
    return tmp_path


def repair(guest: Path, layout: Layout | None = None, **options: object) -> Guest:
    asked = migration(**{"regen_initramfs": False, **options})
    return repaired({"partition 1": guest}, layout or simple_layout(), asked)


@pytest.mark.parametrize(
    ("rest", "effect"),
    [
        ("/srv ext4 defaults 0 2", "the guest stops in emergency mode when it boots"),
        ("/srv ext4 nofail 0 2", "the guest boots without it (nofail)"),
        ("/srv ext4 noauto 0 2", "the guest boots without it (noauto)"),
        ("none swap sw 0 0", "the guest waits for it when it boots"),
    ],
)
@pytest.mark.parametrize("spec", [f"UUID={GONE}", "LABEL=gone", "/dev/mapper/mpathq1", "/dev/vg9/data", "/dev/odd0"])
def test_fstab(guest: Path, spec: str, rest: str, effect: str) -> None:
    text = f"/dev/sda1 / ext4 defaults 0 1\n{spec} {rest}\n"
    file = put(guest, "etc/fstab", text)
    (warning,) = repair(guest).warnings
    assert warning.startswith(f"/etc/fstab line 2: {spec} (") and effect in warning
    assert file.read_text() == text.replace("/dev/sda1", f"UUID={ROOT_UUID}")


@pytest.mark.parametrize("rest", ["/srv xfs defaults 0 2", "none swap sw 0 0"])
def test_a_line_is_not_given_a_volume_with_another_file_system(guest: Path, rest: str) -> None:
    layout = Layout(tables=("dos",), volumes=(*simple_layout().volumes, partition(6, uuid=GONE)))
    file = put(guest, "etc/fstab", f"/dev/sda6 {rest}\n")
    (warning,) = (one for one in repair(guest, layout).warnings if one.startswith("/etc/fstab"))
    assert "would be partition 6, which has ext4 instead of" in warning
    assert file.read_text().startswith("/dev/sda6 ")


def test_no_other_mount_point_becomes_the_root(guest: Path) -> None:
    file = put(guest, "etc/fstab", "UUID=x / ext4 defaults 0 1\n/dev/sda1 /srv ext4 defaults 0 2\n")
    warnings = repair(guest).warnings
    assert any("/dev/sda1 (/srv) would be partition 1, which is the root" in warning for warning in warnings)
    assert "/dev/sda1 /srv" in file.read_text()


def test_a_root_of_fstab_that_is_another_volume_is_reported(guest: Path) -> None:
    layout = Layout(tables=("dos",), volumes=(*simple_layout().volumes, partition(6, uuid=GONE)))
    put(guest, "etc/fstab", f"UUID={GONE} / ext4 defaults 0 1\n")
    assert "is partition 6, and the system was found on partition 1" in " ".join(repair(guest, layout).warnings)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/systemd/system/srv.mount", f"[Mount]\nWhat=UUID={GONE}\n"),
        ("etc/systemd/system/srv.mount", f"[Mount]\nWhat=/dev/disk/by-uuid/{GONE}\n"),
        ("etc/crypttab", f"data UUID={GONE} none luks\n"),
        ("etc/initramfs-tools/conf.d/resume", f"RESUME=UUID={GONE}\n"),
        ("etc/default/grub", f'GRUB_CMDLINE_LINUX="resume=UUID={GONE}"\n'),
        ("etc/default/grub", f"GRUB_DEVICE=/dev/disk/by-uuid/{GONE}\n"),
        ("etc/default/grub_installdevice", f"/dev/disk/by-uuid/{GONE}\n"),
        ("boot/grub/grub.cfg", f"linux /v root=UUID={ROOT_UUID} resume=UUID={GONE}\n"),
    ],
)
def test_other_settings(guest: Path, path: str, text: str) -> None:
    file = put(guest, path, text)
    (warning,) = repair(guest).warnings
    assert GONE in warning and "matches no volume on these disks" in warning
    assert file.read_text() == text
    put(guest, path, text.replace(GONE, SWAP_UUID))
    assert repair(guest).warnings == ()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("boot/grub/grub.cfg", f"linux /v root=UUID={GONE} ro\n"),
        ("boot/grub/grub.cfg", "linux /v root=/dev/mapper/vg9-root ro\n"),
        ("boot/grub2/grubenv", f"# GRUB Environment Block\nkernelopts=root=LABEL=gone ro\n{'#' * 900}"),
        ("boot/loader/entries/one.conf", f"options root=PARTUUID={GONE} ro\n"),
        ("boot/extlinux/extlinux.conf", "append root=/dev/odd0 ro\n"),
        ("boot/grub/menu.lst", f"kernel /v root=/dev/disk/by-uuid/{GONE}\n"),
    ],
)
def test_a_root_on_no_disk_fails_the_job(guest: Path, path: str, text: str) -> None:
    put(guest, path, text)
    with pytest.raises(MigrationFailed) as caught:
        repair(guest)
    assert caught.value.code == "kernel-root-missing"
    assert f"/{path}: root=" in caught.value.message and ROOT_UUID in caught.value.hint
    put(guest, "boot/grub/grub.cfg", f"linux /v root=UUID={ROOT_UUID}\n")
    if path != "boot/grub/grub.cfg":
        assert "matches no volume on these disks" in " ".join(repair(guest).warnings)


def test_the_first_kernel_line_of_a_file_counts(guest: Path) -> None:
    good, bad = f"linux /v root=UUID={ROOT_UUID}\n", f"linux /v root=UUID={GONE}\n"
    put(guest, "boot/grub/grub.cfg", good + bad)
    assert GONE in repair(guest).warnings[0]
    put(guest, "boot/grub/grub.cfg", bad + good)
    with pytest.raises(MigrationFailed):
        repair(guest)


@pytest.mark.parametrize("root", [f"UUID={GONE}", "/dev/sda1"])
def test_an_unrepaired_boot_loader_is_reported(guest: Path, root: str) -> None:
    put(guest, "boot/grub/grub.cfg", f"linux /v root={root}\n")
    (warning,) = repair(guest, no_grub=True).warnings
    assert f"root={root}" in warning and "the guest does not find its root" in warning


@pytest.mark.parametrize("root", ["$rootdev", "ZFS=pool/root", "/dev/nfs", "UUID=$uuid", "live:CDLABEL=x"])
def test_a_root_that_is_no_volume_by_name_is_left_alone(guest: Path, root: str) -> None:
    put(guest, "boot/grub/grub.cfg", f"linux /v root={root}\nlinux /v root=UUID={ROOT_UUID}\n")
    assert repair(guest).warnings == ()
