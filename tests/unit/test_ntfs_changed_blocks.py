"""What the confined process keeps of a volume's changes."""

from __future__ import annotations

import errno
import hashlib

import pytest

from hyper2kvmd.volumes.ntfs import child
from hyper2kvmd.volumes.ntfs.child import BLOCK, STEP, ChangedBlocks

SIZE = 3 * STEP + 512
OLD, NEW = (hashlib.shake_128(name).digest(SIZE) for name in (b"old", b"new"))


class Blocks(ChangedBlocks):
    """Over the bytes of OLD, without a starter."""

    def _fetch(self, step: int, last: int) -> None:
        for number in range(step, last):
            self._steps[number] = OLD[number * STEP : (number + 1) * STEP]


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Blocks:
    """At most four blocks can change."""
    monkeypatch.setattr(child, "CHANGED_LIMIT", 4 * BLOCK)
    return Blocks(SIZE)


def test_what_is_written_as_before_does_not_count(blocks: Blocks) -> None:
    edited = OLD[:100] + b"new" + OLD[103:]
    for at in range(0, SIZE, 10_000):
        blocks.write(at, edited[at : at + 10_000])
    assert list(blocks.changed) == [0] and not blocks.is_full
    assert blocks.read(0, SIZE) == edited


def test_a_block_that_gets_its_old_bytes_back_is_unchanged(blocks: Blocks) -> None:
    for number in range(20):
        blocks.write(number * BLOCK + 5, b"new")
        blocks.write(number * BLOCK + 5, OLD[number * BLOCK + 5 : number * BLOCK + 8])
    blocks.write(SIZE - 512, NEW[-512:])
    blocks.write(SIZE - 512, OLD[-512:])
    assert blocks.changed == {} and blocks.read(0, SIZE) == OLD


def test_more_changes_than_the_limit_are_refused(blocks: Blocks) -> None:
    blocks.write(0, bytes(20 * BLOCK))
    blocks.write(0, NEW[: 4 * BLOCK])
    with pytest.raises(OSError, match="too many changes") as failure:
        blocks.write(30 * BLOCK, NEW[:BLOCK])
    assert failure.value.errno == errno.ENOSPC and blocks.is_full
