"""How runs are cut into batches: bounded, and never inside a unit of the target."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hyper2kvmd.disk.blocks import Run
from hyper2kvmd.disk.engine.batches import BATCH, PIECE, CopyBatch, Cutter

UNIT, WINDOW = 65536, 64 << 20
LARGEST = 1 << 20


@st.composite
def runs(draw: st.DrawFn) -> list[Run]:
    """Many neighbours, most of them where no unit begins."""
    step = draw(st.sampled_from((3 * 512, 65536, 65536 + 512, LARGEST)))
    at, found = draw(st.sampled_from((0, 512, 4096))), []
    packed = draw(st.booleans())
    for number in range(min(3000, 3 * WINDOW // step)):
        found.append(Run(at, step, 3, 2 * at + number, packed))
        at += step + (draw(st.sampled_from((0, 0, 512, UNIT))) if number % 50 == 0 else 0)
    return found


def cut(found: list[Run], start: int = 0, *, clone: bool = False) -> list[CopyBatch]:
    return [*Cutter(UNIT, WINDOW, 512, lambda _file: clone).batches(found, start)]


def units(batch: CopyBatch) -> tuple[int, int]:
    last = batch.pieces[-1]
    return batch.pieces[0].guest // UNIT, (last.guest + last.length - 1) // UNIT


def covered(batches: list[CopyBatch]) -> Iterator[tuple[int, int]]:
    """Guest ranges, neighbours joined."""
    begin = end = -1
    for piece in (piece for batch in batches for piece in batch.pieces):
        if piece.guest != end:
            if end >= 0:
                yield begin, end
            begin = piece.guest
        end = piece.guest + piece.length
    yield begin, end


@given(found=runs(), clone=st.booleans())
def test_batches_are_bounded_and_share_no_unit(found: list[Run], clone: bool) -> None:
    batches = cut(found, clone=clone)
    assert [batch.number for batch in batches] == [*range(len(batches))]
    assert all(batch.loaded < BATCH + PIECE + UNIT for batch in batches)
    assert all(batch.length == sum(piece.length for piece in batch.pieces) for batch in batches)
    edges = [units(batch) for batch in batches]
    assert all(last < first for (_, last), (first, _) in pairwise(edges))
    assert all(first * UNIT // WINDOW == last * UNIT // WINDOW for first, last in edges)
    assert sum(batch.length for batch in batches) == sum(run.length for run in found)


@given(found=runs(), data=st.data())
def test_what_is_cut_from_the_end_of_any_batch_is_the_rest(found: list[Run], data: st.DataObject) -> None:
    batches = cut(found)
    number = data.draw(st.integers(0, len(batches) - 1))
    position, runs_from = batches[number].end
    rest = cut([run for run in found if run.guest >= runs_from], position)
    if number + 1 < len(batches):
        assert [*covered(rest)] == [*covered(batches[number + 1 :])]
    else:
        assert rest == []
