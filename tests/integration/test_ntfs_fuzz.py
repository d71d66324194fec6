"""Short runs of what `make fuzz` does for long: damaged NTFS volumes."""

from __future__ import annotations

from tests.fuzz import ntfs


def test_a_damaged_volume_is_described_or_refused() -> None:
    ends, wrong = ntfs.fuzz(seed=1, count=250)
    assert not wrong, wrong[0]
    assert {"described", "ntfs-damaged"} <= set(ends)


def test_the_process_alone_falls() -> None:
    ends, wrong = ntfs.fuzz(seed=1, count=25, deep=True)
    assert not wrong, wrong[0]
    assert {"changed", "an error", "ntfs-damaged"} <= set(ends)
