"""A guest whose root lies in a LUKS container, and what is done of it without the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.linux.root_search import find_root
from hyper2kvmd.model.disks import ESP_TYPES, Layout, Volume
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.progress import Event, Warned
from hyper2kvmd.stages.repair import repair_disks
from tests.support.efi_programs import program
from tests.support.guest_on_disk import FolderAccess, guest_disks, migration, partition, put

UUID = "3f0b6a52-0c1d-4e2f-8a3b-4c5d6e7f8091"
CONTAINER = partition(2, "crypto_LUKS", uuid=UUID)
INSIDE = Volume(kind="luks", name="partition 2, decrypted", obstacle="it is encrypted, and no key was given")
GRUB_CFG = "linux /vmlinuz-6.1.0 root=/dev/mapper/root cryptdevice=/dev/sda2:root quiet\n"


def layout(*volumes: Volume) -> Layout:
    return Layout(tables=("gpt",), volumes=(*volumes, CONTAINER, INSIDE))


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    folder = tmp_path / "boot"
    put(folder, "vmlinuz-6.1.0", "kernel")
    put(folder, "initrd.img-6.1.0", "initramfs")
    put(folder, "grub/grub.cfg", GRUB_CFG)
    put(folder, "grub/device.map", "(hd0) /dev/sda\n")
    return folder


def mended(folders: dict[str, Path], disk: Layout, events: list[Event] | None = None, **keys: object) -> Guest:
    return repair_disks(guest_disks(FolderAccess(folders), disk, migration(**keys), events=events))


def test_what_lies_outside_is_mended_and_the_rest_is_told(boot: Path) -> None:
    events: list[Event] = []
    guest = mended({"partition 1": boot}, layout(partition(1)), events)
    assert guest.family == "linux" and guest.root.startswith("partition 2, decrypted")
    assert (boot / "grub/grub.cfg").read_text() == GRUB_CFG.replace("/dev/sda2", f"UUID={UUID}")
    assert {change.path for change in guest.changes} == {"/boot/grub/grub.cfg", "/boot/grub/device.map"}
    (warning,) = guest.warnings
    assert warning.startswith("partition 2, decrypted: it is encrypted, and no key was given; there is no Linux root")
    assert Warned(message=warning) in events
    assert mended({"partition 1": boot}, layout(partition(1))).changes == ()


def test_its_efi_partition_gets_the_loader_that_firmware_finds(boot: Path, tmp_path: Path) -> None:
    esp = tmp_path / "esp"
    put(esp, "EFI/debian/grubx64.efi", program())
    disk = layout(partition(1), partition(3, "vfat", parttype=ESP_TYPES[0]))
    guest = mended({"partition 1": boot, "partition 3": esp}, disk)
    assert "/efi/EFI/BOOT/BOOTX64.EFI" in {change.path for change in guest.changes}
    assert (esp / "EFI/BOOT/BOOTX64.EFI").read_bytes() == (esp / "EFI/debian/grubx64.efi").read_bytes()


def test_a_disk_that_is_one_container_is_told_of(tmp_path: Path) -> None:
    guest = mended({"partition 1": tmp_path}, layout(partition(1)))
    assert guest.changes == () and "NOT repaired" in guest.warnings[0]


def test_a_key_that_was_given_has_to_open_it(boot: Path) -> None:
    with pytest.raises(MigrationFailed, match="partition 2, decrypted") as caught:
        mended({"partition 1": boot}, layout(partition(1)), luks_keyfile="/vm/key")
    assert (caught.value.code, caught.value.kind) == ("volume-locked", Kind.PERMANENT)
    assert (boot / "grub/grub.cfg").read_text() == GRUB_CFG


def test_a_container_beside_the_root_is_told_of(tmp_path: Path) -> None:
    put(tmp_path, "etc/fstab", "")
    (tmp_path / "usr").mkdir()
    found = find_root(FolderAccess({"partition 1": tmp_path}), layout(partition(1)))
    assert found is not None and not found.locked
    assert found.troubles == ("partition 2, decrypted: it is encrypted, and no key was given",)
