"""The budget for reading a layout: what an honest machine needs of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hyper2kvmd.volumes import luks
from hyper2kvmd.volumes.budget import WORK_SECONDS, Budget
from tests.support.bytes_reader import Bytes
from tests.support.luks import HONEST

TRIED = 6
"""Three keys, each with and without its line end; none of them fits."""


@pytest.mark.parametrize("make", HONEST.values(), ids=HONEST)
def test_an_honest_machine_stays_below_it(make: Callable[[], bytes]) -> None:
    """Five disks."""
    budget, spent = Budget(), 0.0
    for _ in range(5):
        header = luks._header(Bytes(make()), budget)
        for seconds in TRIED * [luks._seconds_of(header, slot) for slot in header.slots]:
            budget.spend(seconds)
            spent += seconds
    assert 400 < spent < WORK_SECONDS
