"""The blocks that a table names, and the sectors that a bitmap of a VHD marks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyper2kvmd.disk.files import SourceFile, open_file
from hyper2kvmd.disk.sources.block_map.table import LARGEST_FILE, Block, require_apart, within_file
from hyper2kvmd.disk.sources.block_map.vhd import marked
from hyper2kvmd.errors import MigrationFailed

MIB = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SourceFile]:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 8 * MIB)
    opened = open_file(path)
    yield opened
    os.close(opened.fd)


def blocks(*places: int) -> list[Block]:
    return [Block(number, at, MIB) for number, at in enumerate(places)]


def test_blocks_in_any_order_and_without_alignment(file: SourceFile) -> None:
    named = blocks(7 * MIB, 512, MIB + 512, 5 * MIB + 1024, 3 * MIB)
    assert list(within_file(file, named)) == named
    require_apart(file, named, MIB)


@pytest.mark.parametrize("again", [7 * MIB, 2 * MIB, 512])
def test_a_place_that_is_named_twice(again: int, file: SourceFile) -> None:
    with pytest.raises(MigrationFailed, match="where another block lies") as caught:
        require_apart(file, blocks(7 * MIB, 2 * MIB, 512, again), MIB)
    assert caught.value.code == "source-corrupt"


def test_more_blocks_than_the_file_has_room_for_are_counted_before_they_are_read(file: SourceFile) -> None:
    def endless() -> Iterator[Block]:
        yield from blocks(*[0] * 9)
        raise AssertionError("the table was read further")

    with pytest.raises(MigrationFailed, match="more data than the file") as caught:
        list(within_file(file, endless()))
    assert caught.value.code == "source-corrupt"


def test_a_block_that_the_file_lacks_is_a_matter_of_its_length(file: SourceFile) -> None:
    with pytest.raises(MigrationFailed) as caught:
        list(within_file(file, blocks(7 * MIB, 7 * MIB + 512)))
    assert caught.value.code == "source-truncated"


def test_the_memory_for_a_file_of_holes_is_bounded(file: SourceFile) -> None:
    with pytest.raises(MigrationFailed) as caught:
        require_apart(file, blocks(LARGEST_FILE + 512), MIB)
    assert caught.value.code == "source-corrupt"


@given(
    st.lists(st.sampled_from([b"\0", b"\xff", b"\x0f", b"\xf0", b"\x55", b"\x81"]), max_size=12).map(b"".join),
    st.data(),
)
def test_the_marked_sectors_are_those_of_the_bits(bits: bytes, data: st.DataObject) -> None:
    end = data.draw(st.integers(0, len(bits) * 8))
    begin = data.draw(st.integers(0, end))
    text = "".join(f"{byte:08b}" for byte in bits)
    found = [sector for first, stop in marked(bits, begin, end) for sector in range(first, stop)]
    assert [sector for sector in found if sector >= begin] == [
        match.start() for match in re.finditer("1", text) if begin <= match.start() < end
    ]
