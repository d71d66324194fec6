"""The boot proof of Windows guests. No Windows is booted: a boot sector plays one in a real emulator.

It waits for the ACPI power button, writes to the disk what Windows would have written to its event log, and powers off.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from dissect.eventlog.evtx import Evtx

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.guest.choice import family_of
from hyper2kvmd.guest.family import OverlayDisks, PreparedGuest
from hyper2kvmd.guest.mounts.access import default_helper, open_image
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.guest.windows.boot_proof.event_log import read_event_log
from hyper2kvmd.guest.windows.boot_proof.prepared import reader_of
from hyper2kvmd.guest.windows.boot_proof.traces import traces
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.volumes.superblock import BlockReader
from tests.guests.altered import boot_it, image_of
from tests.guests.windows import states
from tests.guests.windows.disk import WindowsDisk
from tests.guests.windows.files import CONFIG
from tests.guests.windows.machine import Windows
from tests.support import ntfs_judges
from tests.support.boot_sectors import assembled
from tests.support.event_logs import booted, event_log
from tests.support.hive_judges import REG_DWORD, values_of
from tests.support.windows_beds import Beds

LOG = "Windows/System32/winevt/Logs/System.evtx"
WINDOWS = Guest(family="windows")
SECTOR, BOOT_CODE = 512, 440
COPIED = 64
"""Sectors of the chunk with the new records."""
STAGE = 64
"""Where the disk has them until the boot: the sector is in no partition."""
BEFORE, AFTER = event_log(booted(1)), event_log((*booted(1), *booted(8)))
PLAYED = """
.code16
xorw %ax, %ax
movw %ax, %ds
movw %ax, %ss
movw $0x7000, %sp
movb %dl, drive
movw $0x602, %dx            # ACPI: enable the power button, in the registers where SeaBIOS puts them
movw $0x100, %ax
outw %ax, %dx
button:
sti
hlt
movw $0x600, %dx
inw %dx, %ax
testb $1, %ah
jz button
{work}
movw $0x604, %dx            # power off (S5)
movw $0x2000, %ax
outw %ax, %dx
stop:
cli
hlt
jmp stop
drive: .byte 0
stage: .byte 16, 0
.word {count}, 0, 0x1000
.quad {stage}
log: .byte 16, 0
.word {count}, 0, 0x1000
.quad {log}
"""
WRITES = """
movb $0x42, %ah
movb drive, %dl
movw $stage, %si
int $0x13
movw $0x4300, %ax
movb drive, %dl
movw $log, %si
int $0x13
"""
RESETS = ".code16\nmovb $0xfe, %al\noutb %al, $0x64\nstop: hlt\njmp stop\n"


def bed(beds: Beds, folder: Path, log: bytes | None = BEFORE) -> WindowsDisk:
    disk = beds.disk(folder / "disk.raw", Windows(firmware="bios"))
    disk.change(lambda files: (files / LOG).write_bytes(log) if log is not None else (files / LOG).unlink())
    return disk


def play(disk: WindowsDisk, folder: Path, work: str) -> None:
    """Make the disk boot a program that answers the power button after its `work`."""
    place = disk.path.read_bytes().find(BEFORE[4096 : 4096 + SECTOR])
    source = PLAYED.format(work=work, count=COPIED, stage=STAGE, log=max(place, 0) // SECTOR)
    with disk.path.open("r+b") as file:
        file.write(assembled(source, folder).ljust(BOOT_CODE, b"\0")[:BOOT_CODE])
        file.seek(STAGE * SECTOR)
        file.write(AFTER[4096 : 4096 + COPIED * SECTOR])


def prepared(disk: WindowsDisk, folder: Path) -> PreparedGuest:
    image = image_of(disk.path)
    disks = OverlayDisks(image.layout, lambda: open_image(image, Helper(default_helper()), folder))
    return family_of(WINDOWS).prepare_boot(disks)


def numbers(disk: WindowsDisk, name: str, folder: Path) -> Mapping[str, int]:
    """The REG_DWORD values of a hive, as other readers find them."""
    path = folder / f"read-{name}"
    path.write_bytes(ntfs_judges.read(disk.path, disk.system.offset, disk.system.length, f"{CONFIG}/{name}"))
    found = values_of(path)
    return {
        f"{key}\\{value}": int.from_bytes(data, "little")
        for key, values in found.items()
        for value, (kind, data) in values.items()
        if kind == REG_DWORD
    }


def test_another_reader_finds_the_same_events() -> None:
    data = event_log(booted(1), booted(8))
    log = read_event_log(data, 0)
    judged = [(one["EventRecordID"], one["Provider_Name"], one["EventID"]) for one in Evtx(io.BytesIO(data))]
    assert log is not None
    assert [(one.number, one.provider, one.event_id) for one in log.new] == judged
    assert len(judged) == 14


def test_the_overlay_gets_settings_that_other_readers_find(windows_beds: Beds, service_folder: Path) -> None:
    disk = bed(windows_beds, service_folder)
    found = prepared(disk, service_folder)
    assert "AutoReboot" in found.note and not found.power_off_proves
    ntfs_judges.check(disk.path, disk.system.offset, disk.system.length)
    system, software = (numbers(disk, name, service_folder) for name in ("SYSTEM", "SOFTWARE"))
    assert system["ControlSet001\\Control\\CrashControl\\AutoReboot"] == 0
    assert system["ControlSet001\\Control\\Session Manager\\Power\\HiberbootEnabled"] == 0
    button = "Policies\\Microsoft\\Power\\PowerSettings\\7648EFA3-DD9C-4E3E-B566-50F929386280"
    assert (software[f"{button}\\ACSettingIndex"], software[f"{button}\\DCSettingIndex"]) == (3, 3)
    assert software["Microsoft\\Windows\\CurrentVersion\\Policies\\System\\ShutdownWithoutLogon"] == 1


def test_new_records_are_traces_and_old_ones_are_not(windows_beds: Beds, service_folder: Path) -> None:
    """Also on a volume that Windows had no time to leave clean."""
    disk = bed(windows_beds, service_folder)
    found = prepared(disk, service_folder)
    assert found.new_traces() == ()
    disk.change(lambda files: (files / LOG).write_bytes(AFTER))
    states.unclean_log(disk)
    states.to_be_checked(disk)
    assert [line for line in found.new_traces() if "Windows started" in line]


def test_without_an_event_log_a_shutdown_has_to_do(windows_beds: Beds, service_folder: Path) -> None:
    found = prepared(bed(windows_beds, service_folder, None), service_folder)
    assert found.power_off_proves and "event log cannot be read" in found.note
    assert found.new_traces() == ()


def test_a_guest_whose_settings_cannot_be_changed_is_booted_unchanged(windows_beds: Beds, service_folder: Path) -> None:
    disk = bed(windows_beds, service_folder)
    disk.change(lambda files: (files / CONFIG / "SOFTWARE").write_bytes(b"regf, but damaged"))
    found = prepared(disk, service_folder)
    assert "booted unchanged" in found.note and not found.power_off_proves


@dataclass
class Stalling:
    """The bytes of a volume, whose server stops to respond after some reads."""

    blocks: BlockReader
    reads_left: int

    @property
    def size(self) -> int:
        return self.blocks.size

    def read(self, offset: int, length: int) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise MigrationFailed("nbd-unreachable", "the NBD server stopped responding", hint="", kind=Kind.RETRY)
        return self.blocks.read(offset, length)


def test_a_fault_of_the_host_is_no_missing_event_log(windows_beds: Beds, service_folder: Path) -> None:
    """Else a shutdown would do as proof, though there is a log."""
    image = image_of(bed(windows_beds, service_folder).path)
    (volume,) = (one for one in image.layout.volumes if one.length > 100 << 20)
    with (
        open_image(image, Helper(default_helper()), service_folder) as access,
        access.blocks(volume, read_only=True) as blocks,
    ):
        whole = Stalling(blocks, 1000)
        assert traces(reader_of(whole)).highest == len(booted(1))
        for reads in range(1000 - whole.reads_left):
            with pytest.raises(MigrationFailed, match="stopped responding"):
                traces(reader_of(Stalling(blocks, reads)))


def test_an_orderly_shutdown_with_new_records_proves_a_boot(windows_beds: Beds, service_folder: Path) -> None:
    disk = bed(windows_beds, service_folder)
    play(disk, service_folder, WRITES)
    before = disk.path.read_bytes()
    verdict = boot_it(image_of(disk.path), guest=WINDOWS, silence_seconds=60.0)
    assert disk.path.read_bytes() == before
    assert any("orderly shutdown" in line for line in verdict.evidence)
    assert any("Windows started (event 12" in line for line in verdict.evidence), verdict.evidence
    assert any("AutoReboot" in line and "throwaway overlay" in line for line in verdict.evidence)


def failure(disk: WindowsDisk, silence_seconds: float) -> MigrationFailed:
    with pytest.raises(MigrationFailed) as caught:
        boot_it(image_of(disk.path), guest=WINDOWS, silence_seconds=silence_seconds)
    return caught.value


def test_a_shutdown_without_new_records_proves_nothing(windows_beds: Beds, service_folder: Path) -> None:
    """A system for recovery on the same disk could answer the power button."""
    disk = bed(windows_beds, service_folder)
    play(disk, service_folder, "")
    failed = failure(disk, 60.0)
    assert failed.code == "boot-unproven"
    assert "powered off when the power button was pressed, but its logs show no boot" in failed.message


def test_a_guest_that_stands_still_is_unproven(windows_beds: Beds, service_folder: Path) -> None:
    """As a blue screen does."""
    failed = failure(bed(windows_beds, service_folder), 10.0)
    assert failed.code == "boot-unproven"
    assert "did not answer the power button" in failed.message
    assert "blue screen" in failed.hint


def test_a_guest_that_restarts_again_and_again_fails(windows_beds: Beds, service_folder: Path) -> None:
    disk = bed(windows_beds, service_folder)
    with disk.path.open("r+b") as file:
        file.write(assembled(RESETS, service_folder).ljust(BOOT_CODE, b"\0")[:BOOT_CODE])
    failed = failure(disk, 60.0)
    assert failed.code == "boot-failed"
    assert "restarted or powered off 3 times" in failed.message
