"""What the boot proof finds in the event log of a Windows guest. No Windows is booted: its entries are made here."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.choice import family_of
from hyper2kvmd.guest.family import OverlayDisks
from hyper2kvmd.guest.mounts.access import default_helper, open_image
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.guest.windows.boot_proof import last_entry
from hyper2kvmd.model.guest import Guest
from tests.guests.altered import image_of
from tests.guests.windows.disk import WindowsDisk
from tests.support.windows_beds import Beds

LOG = "Windows/System32/winevt/Logs/System.evtx"
HEADER, CHUNK = 4096, 65536


def event_log(*chunks: tuple[int, int]) -> bytes:
    """A log whose header is as old as that of one in use; each chunk has the identifiers of its entries."""
    log = b"ElfFile\0".ljust(HEADER, b"\0")
    for first, last in chunks:
        log += struct.pack("<8sQQQQ", b"ElfChnk\0", first, last, first, last).ljust(CHUNK, b"\0")
    return log


def overlays(disk: WindowsDisk, folder: Path) -> OverlayDisks:
    image = image_of(disk.path)
    return OverlayDisks(image.layout, lambda: open_image(image, Helper(default_helper()), folder))


def write(disk: WindowsDisk, log: bytes) -> None:
    disk.change(lambda files: (files / LOG).write_bytes(log) and None)


def test_new_entries_are_a_trace_and_old_ones_are_not(windows_beds: Beds, service_folder: Path) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw")
    write(disk, event_log((1, 90), (91, 120)))
    before = disk.path.read_bytes()
    prepared = family_of(Guest(family="windows")).prepare_boot(overlays(disk, service_folder))
    assert disk.path.read_bytes() == before
    assert "120 entries" in prepared.note
    assert prepared.new_traces() == ()
    write(disk, event_log((1, 90), (91, 133)))
    (trace,) = prepared.new_traces()
    assert "13 new entries" in trace


def test_a_guest_without_a_log_leaves_no_trace(windows_beds: Beds, service_folder: Path) -> None:
    disk = windows_beds.disk(service_folder / "disk.raw")
    disk.change(lambda files: (files / LOG).unlink())
    prepared = family_of(Guest(family="windows")).prepare_boot(overlays(disk, service_folder))
    assert "booted unchanged" in prepared.note and prepared.new_traces() == ()


@pytest.mark.parametrize(
    ("log", "last"),
    [
        (event_log(), 0),
        (event_log((1, 5)), 5),
        (event_log((200, 220), (1, 199)), 220),
        (event_log((0, (1 << 64) - 1)), 0),
        (event_log((1, 5))[: HEADER + 20], 0),
    ],
    ids=["empty", "one", "wrapped", "never used", "cut"],
)
def test_the_last_entry_of_a_log(log: bytes, last: int) -> None:
    assert last_entry(log) == last


def test_what_is_no_log_is_refused() -> None:
    with pytest.raises(MigrationFailed) as caught:
        last_entry(b"\x1b[31mxx" * 9)
    assert caught.value.code == "guest-damaged" and caught.value.message.isprintable()
