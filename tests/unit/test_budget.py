"""The budget for reading a layout: what an honest machine needs of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hyper2kvmd.volumes import luks
from hyper2kvmd.volumes.budget import WORK_SECONDS
from hyper2kvmd.volumes.layout import read_layout
from tests.support.bytes_reader import Bytes
from tests.support.luks import HONEST


@pytest.mark.parametrize("make", HONEST.values(), ids=HONEST)
def test_an_honest_machine_stays_below_it(make: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Five disks and three keys, none of which fits: each is tried with and without its line end."""
    seconds: list[float] = []

    def pretend(how: luks._Derivation, _text: bytes, length: int) -> bytes:
        seconds.append(how.seconds(length))
        return bytes(length)

    monkeypatch.setattr(luks, "_derive", pretend)
    monkeypatch.setattr(luks, "_merge", lambda _material, length, _name: bytes(length))
    layout = read_layout([Bytes(make()) for _ in range(5)], [b"one\n", b"two\n", b"three\n"])
    inside = [volume for volume in layout.volumes if volume.kind == "luks"]
    assert len(inside) == 5 and 400 < sum(seconds) < WORK_SECONDS
    assert {volume.obstacle for volume in inside} == {"it is encrypted, and none of the given keys opens it"}
