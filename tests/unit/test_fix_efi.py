"""Repairs on the EFI system partition: a FAT file system made and read by mtools."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.linux import pe
from hyper2kvmd.model.disks import Layout, Segment
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.volumes.mapping import linear
from tests.support.efi_programs import AA64, IA32, X64, program
from tests.support.guest_on_disk import ROOT_UUID, files_below, migration, partition, put, repaired

ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
XBOOTLDR_TYPE = "bc13c2ff-59e6-4262-a352-b275fd6f7172"
VERSION = "6.1.0-18-amd64"
LOADER = "/boot/efi/EFI/BOOT/BOOTX64.EFI"


class Machine:
    """A guest of two partitions, as folders."""

    def __init__(self, folder: Path, *, esp_bytes: int = 4 << 20) -> None:
        self.root, self.esp, self.boot = folder / "root", folder / "esp", folder / "boot"
        self.esp.mkdir()
        self.boot.mkdir()
        put(self.root, "etc/os-release", "ID=debian\n")
        put(
            self.root,
            "etc/fstab",
            f"UUID={ROOT_UUID} / ext4 defaults 0 1\nUUID=AAAA-BBBB /boot/efi vfat umask=0077 0 1\n",
        )
        put(self.root, "usr/bin/x", "")
        (self.root / "boot/efi").mkdir(parents=True)
        esp = partition(1, "vfat", uuid="AAAA-BBBB", parttype=ESP_TYPE)
        place = Segment(offset=8 << 20, length=esp_bytes)
        self.volumes = [esp.with_changes(stretches=linear(place)), partition(2, uuid=ROOT_UUID)]

    def repair(self, **options: object) -> Guest:
        folders = {"partition 1": self.esp, "partition 2": self.root, "partition 3": self.boot}
        asked = migration(**{"regen_initramfs": False, **options})
        disk = Layout(tables=("gpt",), volumes=tuple(self.volumes))
        guest = repaired(folders, disk, asked)
        after = files_below(self.esp)
        assert repaired(folders, disk, asked).changes == ()
        assert files_below(self.esp) == after
        return guest

    def with_kernel(self) -> None:
        """One that has virtio built in."""
        modules = f"usr/lib/modules/{VERSION}"
        put(self.root, f"{modules}/modules.dep", "")
        put(
            self.root,
            f"{modules}/modules.builtin",
            "kernel/virtio_pci.ko\nkernel/virtio_blk.ko\nkernel/virtio_scsi.ko\n",
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def copies(guest: Guest) -> dict[str, str]:
    return {change.path: change.summary for change in guest.changes if change.fix == "efi-fallback"}


# ---------------------------------------------------------------- the fallback loader


@pytest.mark.parametrize(
    ("machine_type", "loader", "fallback"),
    [
        (X64, "debian/grubx64.efi", "BOOTX64.EFI"),
        (IA32, "debian/grubia32.efi", "BOOTIA32.EFI"),
        (AA64, "debian/grubaa64.efi", "BOOTAA64.EFI"),
        (X64, "systemd/systemd-bootx64.efi", "BOOTX64.EFI"),
        (X64, "SUSE/GRUB.EFI", "BOOTX64.EFI"),
    ],
)
def test_the_loader_is_put_where_a_firmware_looks(
    machine: Machine, machine_type: int, loader: str, fallback: str
) -> None:
    put(machine.esp, f"EFI/{loader}", program(machine_type, b"loader"))
    assert copies(machine.repair()) == {f"/boot/efi/EFI/BOOT/{fallback}": f"a copy of /boot/efi/EFI/{loader}"}
    assert (machine.esp / "EFI/BOOT" / fallback).read_bytes() == program(machine_type, b"loader")


def test_a_loader_that_is_there_stays(machine: Machine) -> None:
    put(machine.esp, "efi/boot/bootx64.efi", b"its own")
    put(machine.esp, "efi/debian/grubx64.efi", program())
    assert machine.repair().changes == ()


def test_shim_takes_what_it_needs(machine: Machine) -> None:
    for name in ("shimx64.efi", "grubx64.efi", "mmx64.efi"):
        put(machine.esp, f"EFI/debian/{name}", program(tag=name.encode()))
    assert set(copies(machine.repair())) == {LOADER, "/boot/efi/EFI/BOOT/grubx64.efi", "/boot/efi/EFI/BOOT/mmx64.efi"}
    assert (machine.esp / "EFI/BOOT/BOOTX64.EFI").read_bytes().endswith(b"shimx64.efi")


def test_shim_with_its_fallback_takes_that(machine: Machine) -> None:
    for name in ("shimx64.efi", "grubx64.efi", "mmx64.efi", "fbx64.efi", "BOOTX64.CSV"):
        put(machine.esp, f"EFI/debian/{name}", program(tag=name.encode()))
    assert set(copies(machine.repair())) == {LOADER, "/boot/efi/EFI/BOOT/fbx64.efi"}


def test_shim_alone_is_no_loader(machine: Machine) -> None:
    put(machine.esp, "EFI/debian/shimx64.efi", program())
    with pytest.raises(MigrationFailed, match=r"neither grubx64\.efi nor fbx64\.efi") as caught:
        machine.repair()
    assert caught.value.code == "efi-shim-incomplete"


def test_the_distribution_s_own_loader_is_taken_and_others_are_named(machine: Machine) -> None:
    put(machine.esp, "EFI/arch/grubx64.efi", program(tag=b"other"))
    put(machine.esp, "EFI/debian/grubx64.efi", program(tag=b"own"))
    put(machine.esp, "EFI/Microsoft/Boot/bootmgfw.efi", program(tag=b"windows"))
    guest = machine.repair()
    assert (machine.esp / "EFI/BOOT/BOOTX64.EFI").read_bytes().endswith(b"own")
    assert "loaders in debian, arch" in guest.warnings[0]


def test_no_loader_at_all_fails_unless_the_guest_boots_by_bios(machine: Machine) -> None:
    put(machine.esp, "EFI/debian/grubx64.efi", b"no program")
    with pytest.raises(MigrationFailed) as caught:
        machine.repair()
    assert caught.value.code == "efi-loader-missing"
    assert "uefi: false" in caught.value.hint
    assert machine.repair(uefi=False).changes == ()
    assert machine.repair(no_grub=True).changes == ()


def test_a_partition_too_small_for_the_loader_is_told_before_anything_is_written(tmp_path: Path) -> None:
    machine = Machine(tmp_path, esp_bytes=1 << 20)
    put(machine.root, "etc/fstab", "/dev/sda2 / ext4 defaults 0 1\nUUID=AAAA-BBBB /boot/efi vfat umask=0077 0 1\n")
    put(machine.esp, "EFI/debian/grubx64.efi", program(tag=bytes(600 << 10)))
    before = files_below(machine.root), files_below(machine.esp)
    with pytest.raises(MigrationFailed, match="is full") as caught:
        machine.repair()
    assert caught.value.code == "guest-full"
    assert (files_below(machine.root), files_below(machine.esp)) == before


# ---------------------------------------------------------------- where the partition lies


@pytest.mark.parametrize(("folder", "point"), [("efi", "/efi"), ("boot/efi", "/boot/efi"), (None, "/efi")])
def test_a_partition_that_fstab_does_not_name_is_found(machine: Machine, folder: str | None, point: str) -> None:
    put(machine.root, "etc/fstab", f"UUID={ROOT_UUID} / ext4 defaults 0 1\n")
    (machine.root / "boot/efi").rmdir()
    if folder:
        (machine.root / folder).mkdir()
    else:
        put(machine.root, "boot/vmlinuz", "")
    put(machine.esp, "EFI/debian/grubx64.efi", program())
    assert set(copies(machine.repair())) == {f"{point}/EFI/BOOT/BOOTX64.EFI"}


def test_the_extended_boot_partition_is_found_by_its_type(machine: Machine) -> None:
    put(machine.root, "etc/fstab", f"UUID={ROOT_UUID} / ext4 defaults 0 1\n")
    (machine.root / "boot/efi").rmdir()
    (machine.root / "efi").mkdir()
    put(machine.esp, "EFI/BOOT/BOOTX64.EFI", program())
    put(machine.boot, "loader/entries/debian.conf", "linux /vmlinuz\noptions root=/dev/sda2 ro\n")
    xbootldr = partition(3, "vfat", parttype=XBOOTLDR_TYPE).with_changes(
        stretches=linear(Segment(offset=64 << 20, length=1 << 20))
    )
    machine.volumes.append(xbootldr)
    (change,) = machine.repair().changes
    assert change.path == "/boot/loader/entries/debian.conf"
    assert f"+options root=UUID={ROOT_UUID} ro" in change.diff


# ---------------------------------------------------------------- entries and their initrds


def test_names_on_the_partition_know_no_case(machine: Machine) -> None:
    put(machine.esp, "EFI/boot/BootX64.efi", program())
    put(machine.esp, "Loader/Entries/debian.conf", "linux /vmlinuz\noptions root=/dev/sda2 ro\n")
    (change,) = machine.repair().changes
    assert change.path == "/boot/efi/Loader/Entries/debian.conf"


def test_an_entry_names_the_initrd_that_counts(machine: Machine) -> None:
    """Not the copy in /boot alone, and not the microcode before it."""
    machine.with_kernel()
    put(machine.esp, "EFI/BOOT/BOOTX64.EFI", program())
    put(machine.root, f"boot/vmlinuz-{VERSION}", "")
    put(machine.root, f"boot/initrd.img-{VERSION}", b"not an archive")
    put(machine.esp, "ucode.img", b"nor this")
    put(machine.esp, "own.img", b"nor is this")
    entry = f"version {VERSION}\nlinux /own.efi\ninitrd /ucode.img\ninitrd /own.img\noptions root=UUID={ROOT_UUID}\n"
    put(machine.esp, "loader/entries/own.conf", entry)
    with pytest.raises(MigrationFailed, match="the format of 14 bytes from byte 0 on is unknown"):
        machine.repair(regen_initramfs=True)
    (machine.root / f"boot/initrd.img-{VERSION}").unlink()
    with pytest.raises(MigrationFailed, match="begin with 6e6f7220"):
        machine.repair(regen_initramfs=True)


# ---------------------------------------------------------------- unified kernel images


def unified(sections: dict[str, tuple[int, bytes]], *, signed: bool = False) -> bytes:
    """A PE32+ with the sections at these addresses; 512-byte file alignment, 4 KiB in memory."""
    optional = bytearray(112 + 16 * 8)
    struct.pack_into("<H", optional, 0, 0x20B)
    struct.pack_into("<IIIIII", optional, 32, 4096, 512, 0, 0, 0, 0)
    end = max(address + len(data) for address, data in sections.values())
    struct.pack_into("<II", optional, 56, -(-end // 4096) * 4096, 1024)
    if signed:
        struct.pack_into("<II", optional, 112 + 4 * 8, 1, 8)
    headers, body = b"", b""
    for name, (address, data) in sections.items():
        stored = -(-len(data) // 512) * 512
        start = 1024 + len(body)
        headers += struct.pack("<8sIIIIIIHHI", name.encode(), len(data), address, stored, start, 0, 0, 0, 0, 0x40000040)
        body += data.ljust(stored, b"\0")
    file = struct.pack("<4sHHIIIHH", b"PE\0\0", X64, len(sections), 0, 0, 0, len(optional), 0x22E)
    return (b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + file + optional + headers).ljust(1024, b"\0") + body


def image(**contents: bytes) -> bytes:
    sections = {".cmdline": (0x3000, b"root=/dev/sda2 ro\n"), ".uname": (0x4000, VERSION.encode())}
    sections |= {".linux": (0x5000, b"kernel"), ".initrd": (0x6000, b"")}
    return unified(sections | {f".{name}": (sections[f".{name}"][0], data) for name, data in contents.items()})


def test_the_command_line_inside_is_mended_and_the_rest_stays(machine: Machine) -> None:
    machine.with_kernel()
    put(machine.esp, "EFI/BOOT/BOOTX64.EFI", program())
    path = put(machine.esp, "EFI/Linux/debian.efi", image())
    guest = machine.repair()
    (change,) = guest.changes
    assert (change.fix, change.path) == ("unified-kernel", "/boot/efi/EFI/Linux/debian.efi")
    assert guest.capabilities.secure_boot  # there was no signature to lose
    after = pe.parse(path.read_bytes())
    assert after is not None
    assert after.content(".cmdline") == f"root=UUID={ROOT_UUID} ro\n".encode()
    assert (after.content(".linux"), after.content(".uname")) == (b"kernel", VERSION.encode())


def test_a_lost_signature_is_said(machine: Machine) -> None:
    machine.with_kernel()
    put(machine.esp, "EFI/BOOT/BOOTX64.EFI", program())
    sections = {".cmdline": (0x3000, b"root=/dev/sda2"), ".linux": (0x5000, b"kernel")}
    path = put(machine.esp, "EFI/Linux/debian.efi", unified(sections, signed=True))
    guest = machine.repair()
    (concern,) = (one for one in guest.concerns if one.code == "secure-boot-unsigned")
    assert "removed the signature of /boot/efi/EFI/Linux/debian.efi: the new machine gets no" in concern.message
    assert not guest.capabilities.secure_boot
    after = pe.parse(path.read_bytes())
    assert after is not None and not after.is_signed


def test_an_image_whose_modules_are_gone_fails_and_says_so(machine: Machine) -> None:
    put(machine.esp, "EFI/BOOT/BOOTX64.EFI", program())
    put(machine.esp, "EFI/Linux/debian.efi", image(uname=b"5.10.0"))
    machine.with_kernel()
    put(machine.root, f"boot/vmlinuz-{VERSION}", "")
    with pytest.raises(
        MigrationFailed, match=r"debian\.efi contains kernel 5\.10\.0, whose modules are not in the guest"
    ):
        machine.repair(regen_initramfs=True)


def test_sections_that_outgrow_their_place_move_behind_all_others() -> None:
    before = pe.parse(image(initrd=b"i" * 5000))
    assert before is not None
    new = {".cmdline": b"c" * 9000, ".initrd": b"j" * 20000}
    after = pe.parse(pe.with_sections(before, new))
    assert after is not None
    assert {name: after.content(name) for name in new} == new
    assert after.content(".linux") == b"kernel"
    spans = [(section.address, section.address + section.size) for section in after.sections]
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    (size,) = struct.unpack_from("<I", after.data, after.optional + pe.IMAGE_SIZE_AT)
    assert spans[-1][1] <= size and size % 4096 == 0


def test_an_image_with_profiles_is_not_half_mended() -> None:
    data = image()
    before = pe.parse(data.replace(b".uname\0\0", b".cmdline"))
    assert before is not None
    with pytest.raises(MigrationFailed, match="unsupported layout"):
        pe.with_sections(before, {".cmdline": b"root=UUID=x"})


@pytest.mark.parametrize("length", [0, 60, 70, 90, 200, 400, 900])
def test_a_cut_program_is_none(length: int) -> None:
    assert pe.parse(image()[:length]) is None
