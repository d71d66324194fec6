"""The boot proof against real guests in a real emulator. None of them speaks on a serial console of its own accord."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.guest import FamilyName, Guest
from hyper2kvmd.model.machine import Hardware
from tests.guests.altered import (
    BIOS,
    GRUB_CFG,
    HEALTHY,
    LINUX,
    altered,
    boot_it,
    drop_initrd,
    mount_a_missing_disk,
    mute,
)
from tests.guests.debian12 import Recipe
from tests.support.benches import hardware_for
from tests.support.boot_sectors import small
from tests.support.kernel import Kernel


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def failure(
    image: Image, *, guest: Guest = LINUX, hardware: Hardware = BIOS, silence_seconds: float = 200.0
) -> MigrationFailed:
    with pytest.raises(MigrationFailed) as caught:
        boot_it(image, guest=guest, hardware=hardware, silence_seconds=silence_seconds)
    assert Kernel.now().clean
    return caught.value


def test_a_healthy_guest_without_a_serial_console_is_heard_and_its_image_stays_untouched(guest_folder: Path) -> None:
    image = altered(HEALTHY, guest_folder, mute)
    before = digest(image.disks[0].path)
    booted = boot_it(image)
    assert any("web01 asked for a login" in line for line in booted.evidence)
    assert any("multi-user.target" in line for line in booted.evidence)
    assert any("throwaway overlay" in line and f"/{GRUB_CFG}" in line for line in booted.evidence)
    assert booted.failed_units == ()
    assert booted.seconds > 0
    assert "web01 login:" in booted.console_tail[-1]
    assert digest(image.disks[0].path) == before
    assert Kernel.now().clean


@pytest.mark.slow
def test_an_initramfs_without_virtio_fails_and_says_where(guest_folder: Path) -> None:
    """As a guest that a migration leaves unrepaired does in test_migration.py, with a console of its own."""
    failed = failure(altered(Recipe(), guest_folder, mute))
    assert failed.code == "boot-failed"
    assert "initramfs shell" in failed.message
    assert "/dev/sda1 does not exist" in failed.message
    assert "regen_initramfs" in failed.hint


def test_emergency_mode_fails_and_names_the_mount(guest_folder: Path) -> None:
    """Userspace speaks then, and may even say that login prompts were reached."""
    failed = failure(altered(HEALTHY, guest_folder, mute, mount_a_missing_disk))
    assert failed.code == "boot-failed"
    assert "emergency mode" in failed.message
    assert "Dependency failed for data.mount" in failed.message
    assert "fstab" in failed.hint


def test_a_panic_fails_with_the_kernels_own_words(guest_folder: Path) -> None:
    failed = failure(altered(HEALTHY, guest_folder, mute, drop_initrd))
    assert failed.code == "boot-failed"
    assert "kernel panicked" in failed.message
    assert "Cannot open root device" in failed.message


@pytest.mark.slow
def test_a_uefi_guest_boots(guest_folder: Path) -> None:
    """As migrated ones do in tests/guests/test_uefi.py."""
    image = altered(Recipe(broken=False, firmware="uefi"), guest_folder, mute)
    booted = boot_it(image, hardware=hardware_for("uefi"))
    assert any("web01 asked for a login" in line for line in booted.evidence)


@pytest.mark.parametrize(
    "hardware",
    [
        BIOS,
        BIOS.with_changes(machine="pc", disk_bus="sata", nic_model="e1000e", cdroms=4, hyperv=True, rtc="localtime"),
        BIOS.with_changes(disk_bus="scsi", rtc="localtime"),
        BIOS.with_changes(
            firmware="uefi",
            secure_boot=True,
            tpm=True,
            cdroms=1,
            serial="VMware-56 4d, x",
            uuid="564d1d2a-9f0e-4a3b-8c55-0123456789ab",
            genid="0a1b2c3d-0000-4000-8000-00000000beef",
        ),
    ],
    ids=["bios", "sata", "scsi", "secure-boot"],
)
def test_an_empty_disk_is_told_at_once(guest_folder: Path, hardware: Hardware) -> None:
    """On every kind of machine: QEMU starts it, and its firmware runs."""
    failed = failure(small(guest_folder), hardware=hardware)
    assert failed.code == "boot-failed"
    assert "firmware found nothing to boot" in failed.message


@pytest.mark.parametrize(
    ("family", "reason", "hint"),
    [
        ("linux", "no Linux root was found", "console=ttyS0"),
        ("windows", "no Windows was found", "look at its screen"),
        ("none", "nothing is known of an operating system", "console=ttyS0"),
    ],
)
def test_a_guest_that_shows_itself_in_no_way_is_unproven(
    guest_folder: Path, family: FamilyName, reason: str, hint: str
) -> None:
    endless_loop = b"\xeb\xfe"
    failed = failure(small(guest_folder, endless_loop), guest=Guest(family=family), silence_seconds=3.0)
    assert failed.code == "boot-unproven"
    assert "it was booted unchanged: " in failed.message and reason in failed.message
    assert hint in failed.hint and "verify: content" in failed.hint
