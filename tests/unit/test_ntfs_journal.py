"""The journal of an NTFS volume: whole or nothing, wherever the process that writes it is killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.volumes.ntfs import journal
from hyper2kvmd.volumes.ntfs.journal import BLOCK, SECTOR, ChangeJournal, changes_of
from tests.support.ntfs import IDENTITY, MemoryVolume

SIZE = 64 * BLOCK
NEW = bytes(range(256)) * (2 * BLOCK // 256)
RUNS = ([3 * BLOCK, BLOCK, 0xFF], [8 * BLOCK, 2 * BLOCK, -1], [40 * BLOCK, BLOCK, 0])


def old_volume() -> MemoryVolume:
    return MemoryVolume(bytearray(b"old bytes of NTFS" * SIZE)[:SIZE])


def new_volume() -> MemoryVolume:
    volume = old_volume()
    for offset, length, byte in RUNS:
        volume.data[offset : offset + length] = NEW if byte < 0 else bytes((byte,)) * length
    return volume


def changes() -> ChangeJournal:
    return changes_of(old_volume(), IDENTITY, RUNS, NEW)


def test_a_journal_turns_the_old_volume_into_the_new_one() -> None:
    volume = old_volume()
    changes().apply(volume)
    assert volume.data == new_volume().data


def test_a_journal_is_stored_whole(tmp_path: Path) -> None:
    changes().write(tmp_path)
    assert journal.stored(tmp_path, IDENTITY) == changes()
    assert journal.stored(tmp_path, "another volume") is None


def test_blocks_that_are_as_before_are_left_out() -> None:
    volume = new_volume()
    assert changes_of(volume, IDENTITY, RUNS, NEW).runs == ()
    volume.data[9 * BLOCK] ^= 1
    (run,) = changes_of(volume, IDENTITY, RUNS, NEW).runs
    assert (run.offset, run.length) == (9 * BLOCK, BLOCK)


@pytest.mark.parametrize("applied", range(0, 4 * BLOCK + 1, SECTOR))
def test_a_retry_completes_a_journal_that_was_cut(applied: int, tmp_path: Path) -> None:
    """By a kill between any two sectors."""
    volume = old_volume()
    changes().write(tmp_path)
    volume.writes_left = applied
    with pytest.raises(KeyboardInterrupt):
        changes().apply(volume)
    volume.writes_left = None
    assert journal.replay_if_present(tmp_path, IDENTITY, volume)
    assert volume.data == new_volume().data
    assert list(tmp_path.iterdir()) == []
    assert not journal.replay_if_present(tmp_path, IDENTITY, volume)


@pytest.mark.parametrize("applied", range(0, 4 * BLOCK + 1, SECTOR))
def test_a_retry_finds_the_note_of_the_attempt_that_was_cut(applied: int, tmp_path: Path) -> None:
    """Not before the volume has all changes."""
    volume = old_volume()
    noted = replace(changes(), note='["what was \u00e9dited"]')
    noted.write(tmp_path)
    assert journal.applied_note(tmp_path, IDENTITY, volume) == ""
    volume.writes_left = applied
    with pytest.raises(KeyboardInterrupt):
        noted.apply(volume)
    volume.writes_left = None
    assert journal.replay_if_present(tmp_path, IDENTITY, volume)
    assert not journal.replay_if_present(tmp_path, IDENTITY, volume)
    assert journal.applied_note(tmp_path, IDENTITY, volume) == noted.note


def test_a_note_is_for_the_changed_volume_only(tmp_path: Path) -> None:
    """A conversion that starts over has the old one again."""
    noted = replace(changes(), note="what was edited")
    noted.write(tmp_path)
    noted.apply(new := old_volume())
    noted.drop(tmp_path)
    assert journal.applied_note(tmp_path, IDENTITY, new) == noted.note
    assert journal.applied_note(tmp_path, "another volume", new) == ""
    assert journal.applied_note(tmp_path, IDENTITY, old_volume()) == ""
    new.data[8 * BLOCK] ^= 1
    assert journal.applied_note(tmp_path, IDENTITY, new) == ""


def test_a_torn_journal_is_never_applied(tmp_path: Path) -> None:
    changes().write(tmp_path)
    place = journal.place_of(tmp_path, IDENTITY)
    whole = place.read_bytes()
    for length in {*range(120), *range(120, len(whole), 777), len(whole) - 1}:
        volume = old_volume()
        place.write_bytes(whole[:length])
        assert not journal.replay_if_present(tmp_path, IDENTITY, volume)
        assert volume.data == old_volume().data and list(tmp_path.iterdir()) == []


def test_a_journal_with_a_changed_byte_is_never_applied(tmp_path: Path) -> None:
    changes().write(tmp_path)
    place = journal.place_of(tmp_path, IDENTITY)
    whole = place.read_bytes()
    for at in range(0, len(whole), 331):
        volume = old_volume()
        place.write_bytes(whole[:at] + bytes((whole[at] ^ 0x10,)) + whole[at + 1 :])
        assert not journal.replay_if_present(tmp_path, IDENTITY, volume)
        assert volume.data == old_volume().data


def test_a_draft_is_no_journal(tmp_path: Path) -> None:
    changes().write(tmp_path)
    place = journal.place_of(tmp_path, IDENTITY)
    place.replace(place.with_suffix(".draft"))
    volume = old_volume()
    assert not journal.replay_if_present(tmp_path, IDENTITY, volume)
    assert volume.data == old_volume().data and list(tmp_path.iterdir()) == []


def test_a_journal_for_other_bytes_is_dropped(tmp_path: Path) -> None:
    """As after a conversion that started over, from a source that was changed."""
    changes().write(tmp_path)
    volume = old_volume()
    volume.data[9 * BLOCK + 5] ^= 1
    before = bytes(volume.data)
    assert not journal.replay_if_present(tmp_path, IDENTITY, volume)
    assert volume.data == before and list(tmp_path.iterdir()) == []


def test_a_volume_that_was_changed_after_a_part_of_a_journal_is_in_doubt(tmp_path: Path) -> None:
    changes().write(tmp_path)
    volume = old_volume()
    volume.data[3 * BLOCK : 4 * BLOCK] = b"\xff" * BLOCK
    volume.data[9 * BLOCK + 5] ^= 1
    with pytest.raises(MigrationFailed) as failure:
        journal.replay_if_present(tmp_path, IDENTITY, volume)
    assert failure.value.code == "ntfs-journal-foreign"


def test_a_journal_of_a_volume_of_another_size_is_dropped(tmp_path: Path) -> None:
    changes().write(tmp_path)
    volume = MemoryVolume(old_volume().data + bytes(BLOCK))
    assert not journal.replay_if_present(tmp_path, IDENTITY, volume)


@pytest.mark.parametrize(
    ("runs", "count"),
    [
        ([[SIZE, BLOCK, 0]], 0),
        ([[SIZE - BLOCK, 2 * BLOCK, 0]], 0),
        ([[-BLOCK, BLOCK, 0]], 0),
        ([[BLOCK, 0, 0]], 0),
        ([[BLOCK, -BLOCK, 0]], 0),
        ([[100, BLOCK, 0]], 0),
        ([[BLOCK, BLOCK, 256]], 0),
        ([[BLOCK, BLOCK, -2]], 0),
        ([[2 * BLOCK, BLOCK, 0], [BLOCK, BLOCK, 0]], 0),
        ([[BLOCK, 2 * BLOCK, 0], [2 * BLOCK, BLOCK, 0]], 0),
        ([[BLOCK, BLOCK, -1]], BLOCK - 1),
        ([[BLOCK, BLOCK, -1]], BLOCK + 1),
        ([[BLOCK, BLOCK, 0]], 1),
        ([[1 << 70, BLOCK, 0]], 0),
        ([[BLOCK, BLOCK]], 0),
        ([[BLOCK, BLOCK, 1.0]], 0),
        ([[True, BLOCK, 0]], 0),
        (["runs"], 0),
        ([[0, BLOCK, 0]] * 100_001, 0),
    ],
)
def test_a_process_that_lies_about_its_changes_is_refused(runs: list[object], count: int) -> None:
    with pytest.raises(MigrationFailed) as failure:
        changes_of(old_volume(), IDENTITY, runs, bytes(count))
    assert failure.value.code == "ntfs-tool-faulty"
