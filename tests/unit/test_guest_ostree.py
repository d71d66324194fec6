"""Guests that are deployments of ostree: which one is found, and where its files are."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.guest import Guest
from tests.support.guest_on_disk import layout, migration, partition, put, repaired

BOOTED = "ostree/deploy/fedora-coreos/deploy/0f3e5c.0"
OLD = "ostree/deploy/fedora-coreos/deploy/9a1b2c.0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    _deploy(root, BOOTED)
    put(root, "ostree/deploy/fedora-coreos/var/.keep", "")
    _link(root, "boot.1/fedora-coreos/0f3e/0", "0f3e5c.0")
    return root


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    boot = tmp_path / "boot"
    (boot / "loader.1").mkdir(parents=True)
    (boot / "loader").symlink_to("loader.1")
    _entry(boot, 2, "/ostree/boot.1/fedora-coreos/0f3e/0")
    return boot


def _deploy(root: Path, place: str) -> None:
    put(root, f"{place}/usr/lib/os-release", "ID=fedora\nPRETTY_NAME='Fedora CoreOS 40'\n")
    put(root, f"{place}/etc/fstab", "/dev/sda9 /data ext4 defaults 0 2\n")


def _link(root: Path, link: str, deployment: str) -> None:
    at = root / "ostree" / link
    at.parent.mkdir(parents=True)
    at.symlink_to(f"../../../deploy/fedora-coreos/deploy/{deployment}")


def _entry(boot: Path, version: int, link: str) -> None:
    text = f"title Fedora\nversion {version}\noptions root=UUID=1 ostree={link}\nlinux /ostree/fedora-coreos/vmlinuz\n"
    put(boot, f"loader.1/entries/ostree-{version}.conf", text)


def _disks() -> Layout:
    return layout(partition(3), partition(4, uuid="1"), partition(9, uuid="data-uuid"))


def repair(root: Path, boot: Path) -> Guest:
    folders = {"partition 3": boot, "partition 4": root}
    return repaired(folders, _disks().with_changes(volumes=_disks().volumes[:2]), migration(regen_initramfs=False))


def test_the_deployment_is_the_guest(root: Path, boot: Path) -> None:
    guest = repair(root, boot)
    assert guest.os_name == "Fedora CoreOS 40" and guest.root.endswith(f"subvolume {BOOTED}")


def test_edits_go_to_the_deployment_its_var_and_the_boot_volume(root: Path, boot: Path) -> None:
    put(root, f"{BOOTED}/etc/cloud/cloud.cfg", "")
    var = "ostree/deploy/fedora-coreos/var"
    put(root, f"{var}/lib/cloud/instance/datasource", "DataSourceVMware: DataSourceVMware\n")
    entry = boot / "loader.1/entries/ostree-2.conf"
    entry.write_text(entry.read_text().replace("root=UUID=1", "root=/dev/sda4"))
    repair(root, boot)
    assert (root / var / "lib/cloud/seed/nocloud/meta-data").is_file()
    assert (root / BOOTED / "etc/cloud/cloud.cfg.d/zz-hyper2kvm.cfg").is_file()
    assert "root=UUID=1" in entry.read_text()


def test_boot_without_a_volume_of_its_own(root: Path, boot: Path) -> None:
    boot.rename(root / "boot")
    (root / "boot/loader.1/entries/ostree-2.conf").write_text(
        "version 2\noptions root=/dev/sda4 ostree=/ostree/boot.1/fedora-coreos/0f3e/0\n"
    )
    repaired({"partition 4": root}, layout(partition(4, uuid="1")), migration(regen_initramfs=False))
    assert "root=UUID=1" in (root / "boot/loader.1/entries/ostree-2.conf").read_text()


def test_the_first_boot_entry_decides_among_deployments(root: Path, boot: Path) -> None:
    _deploy(root, OLD)
    _link(root, "boot.1/fedora-coreos/9a1b/0", "9a1b2c.0")
    _entry(boot, 1, "/ostree/boot.1/fedora-coreos/9a1b/0")
    guest = repair(root, boot)
    assert guest.root.endswith(BOOTED)
    assert any("9a1b2c.0" in warning for warning in guest.warnings)
    _entry(boot, 3, "/ostree/boot.1/fedora-coreos/9a1b/0")
    assert repair(root, boot).root.endswith(OLD)


def test_deployments_without_a_boot_entry_are_refused(root: Path, boot: Path) -> None:
    _deploy(root, OLD)
    (boot / "loader.1/entries/ostree-2.conf").unlink()
    with pytest.raises(MigrationFailed, match="2 ostree deployments") as caught:
        repair(root, boot)
    assert caught.value.code == "guest-deployment-unclear"


def test_composefs_alone_is_refused_by_name(tmp_path: Path) -> None:
    for path in ("state/deploy", "composefs"):
        (tmp_path / path).mkdir(parents=True)
    with pytest.raises(MigrationFailed, match="composefs"):
        repaired({"partition 4": tmp_path}, layout(partition(4)), migration())


def test_a_guest_that_ignition_has_not_set_up_is_warned_of(root: Path, boot: Path) -> None:
    put(boot, "ignition.firstboot", "")
    assert any("Ignition has not run" in warning for warning in repair(root, boot).warnings)


def test_a_version_with_more_digits_than_python_converts(root: Path, boot: Path) -> None:
    text = f"version {'1' * 5000}\noptions root=UUID=1 ostree=/loop\n"
    put(boot, "loader.1/entries/ostree-3.conf", text)
    (root / "loop").symlink_to("loop")
    assert BOOTED in repair(root, boot).root
