"""UEFI guests leave their boot entries behind: each of these starts from a firmware that knows nothing of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.disk.qemu.export import export
from hyper2kvmd.disk.qemu.nbd import NbdReader
from hyper2kvmd.guest.mounts.access import open_image
from hyper2kvmd.guest.mounts.rootside import Helper, default_helper
from hyper2kvmd.model.disks import DiskImage, Image
from hyper2kvmd.stages.repair import repair_disks
from hyper2kvmd.volumes.layout import read_layout
from tests.guests import systemd_boot, uefi_grub
from tests.guests.build import MIB
from tests.guests.efi_disk import SIZE
from tests.guests.guest import Guest, disk
from tests.support.disks import sh
from tests.support.guest_on_disk import guest_disks, migration
from tests.support.host import USER, command, service_python
from tests.support.host import installed_helper as installed_helper
from tests.support.host import service_folder as service_folder
from tests.support.host import service_user as service_user
from tests.support.kernel import Kernel

ESP_OFFSET = MIB

LIMIT = 290
"""Seconds that a migration with a boot may take before it is ended."""


def migrate(guest: Guest, folder: Path, **keys: object) -> subprocess.CompletedProcess[str]:
    """A one-shot migration by the service user."""
    source = folder / "web01.vmdk"
    sh("qemu-img", "convert", "-f", "raw", "-O", "vmdk", disk(guest), source)
    source.chmod(0o644)
    settings = {"vmdk": source, "vm_name": "web01", "output_dir": folder / "out", **keys}
    (folder / "web01.yaml").write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
    (folder / "out").mkdir()
    shutil.chown(folder / "out", USER, USER)
    argv = service_python("hyper2kvmd.cli.ctl", "--config", folder / "web01.yaml", "--conversion-dir", folder / "work")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT)
    assert Kernel.now().clean
    return done


def migrated(guest: Guest, folder: Path, **keys: object) -> dict[str, Any]:
    """The report of a migration that succeeds."""
    done = migrate(guest, folder, **keys)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads((folder / "out" / "web01.report.json").read_text())
    return report


def changes(report: dict[str, Any]) -> dict[str, str]:
    return {change["path"]: change["summary"] for change in report["guest"]["changes"]}


def assert_booted(report: dict[str, Any]) -> None:
    assert any("asked for a login" in line for line in report["verdict"]["evidence"])
    assert report["plan"]["firmware"] == "uefi"


def assert_repaired_for_good(folder: Path) -> None:
    """The EFI partition is sound, and a second repair finds nothing to do."""
    path = folder / "out" / "web01.qcow2"
    with (
        export(path, "qcow2", folder, exports={"": None}, writable=False) as exporter,
        NbdReader(exporter.socket, "") as reader,
    ):
        layout = read_layout([reader])
        (esp,) = (volume for volume in layout.volumes if volume.content == "vfat")
        (folder / "esp.fat").write_bytes(reader.read(ESP_OFFSET, esp.length))
    said = command("fsck.vfat", "-n", "-v", folder / "esp.fat")
    assert "differs" not in said and "wrong" not in said, said
    made = DiskImage(path=path, virtual_size=SIZE, file_bytes=path.stat().st_size)
    image = Image(disks=(made,), format="qcow2", layout=layout)
    before = path.read_bytes()
    with open_image(image, Helper(default_helper()), folder) as opened:
        again = repair_disks(guest_disks(opened, layout, migration()))
    assert (again.changes, again.warnings) == ((), ())
    assert path.read_bytes() == before


@pytest.mark.slow
def test_without_the_repair_a_firmware_finds_nothing(service_folder: Path, installed_helper: tuple[str, ...]) -> None:
    done = migrate(uefi_grub.GUESTS["uefi-grub"], service_folder, verify="boot", no_grub="true")
    assert done.returncode == 1
    assert "firmware found nothing to boot" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "copied"),
    [
        ("uefi-grub", {"BOOTX64.EFI"}),
        pytest.param("uefi-shim", {"BOOTX64.EFI", "fbx64.efi"}, marks=pytest.mark.slow),
        pytest.param("uefi-shim-bare", {"BOOTX64.EFI", "grubx64.efi", "mmx64.efi"}, marks=pytest.mark.slow),
    ],
)
def test_grub_boots_without_its_boot_entry(
    name: str, copied: set[str], service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    report = migrated(uefi_grub.GUESTS[name], service_folder, verify="boot")
    assert_booted(report)
    paths = {path for path in changes(report) if path.startswith("/boot/efi/")}
    assert paths == {f"/boot/efi/EFI/BOOT/{file}" for file in copied}
    assert_repaired_for_good(service_folder)


@pytest.mark.slow
def test_a_signed_guest_boots_with_secure_boot(service_folder: Path, installed_helper: tuple[str, ...]) -> None:
    """Its repairs changed the initramfs and grub.cfg, which carry no signature."""
    report = migrated(uefi_grub.GUESTS["uefi-shim"], service_folder, verify="boot", secure_boot="true")
    assert_booted(report)
    assert any(line.endswith(", with Secure Boot") for line in report["verdict"]["evidence"])
    assert [one["code"] for one in report["plan"]["concerns"]] == ["secure-boot-keys-lost"]
    assert 'name="enrolled-keys"' in (service_folder / "out" / "web01.xml").read_text()


@pytest.mark.slow
def test_an_unsigned_loader_does_not_boot_with_secure_boot(
    service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    done = migrate(uefi_grub.GUESTS["uefi-grub"], service_folder, verify="boot", secure_boot="true")
    assert done.returncode == 1
    assert "firmware found nothing to boot" in done.stdout + done.stderr


def test_systemd_boot_finds_virtio_in_the_initrd_beside_its_entry(
    service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    report = migrated(systemd_boot.SYSTEMD_BOOT, service_folder, verify="boot")
    assert_booted(report)
    changed = changes(report)
    assert any(path.startswith("/boot/efi/loader/entries/") for path in changed)
    assert any(path.startswith("/boot/efi/") and "/initrd.img-" in path for path in changed)
    assert "/etc/kernel/cmdline" in changed
    assert "/boot/efi/EFI/BOOT/BOOTX64.EFI" in changed
    assert_repaired_for_good(service_folder)


@pytest.mark.slow
def test_a_unified_kernel_image_is_mended_inside(service_folder: Path, installed_helper: tuple[str, ...]) -> None:
    report = migrated(systemd_boot.UNIFIED_KERNEL, service_folder, verify="boot")
    assert_booted(report)
    (summary,) = (text for path, text in changes(report).items() if path.startswith("/boot/efi/EFI/Linux/"))
    assert "root=/dev/sda2 is now root=UUID=" in summary
    assert "virtio_blk" in summary
    assert_repaired_for_good(service_folder)
