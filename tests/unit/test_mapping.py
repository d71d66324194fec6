"""Stretches: whatever is made of them reads as the bytes that it is made of."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hyper2kvmd.model.disks import Crypt, Segment, Stretch
from hyper2kvmd.volumes.mapping import (
    OpenDisks,
    Stretches,
    Unmappable,
    cut,
    encrypted,
    joined,
    linear,
    mirrored,
    striped,
)
from tests.support.bytes_reader import Bytes

KIB = 1024
DISK = 256 * KIB
CHUNK = 8 * KIB
KEY = os.urandom(64)


@pytest.fixture
def machine() -> OpenDisks:
    disks = [Bytes(os.urandom(DISK)) for _ in range(2)]
    machine = OpenDisks(disks)
    machine.keys["c"] = KEY
    return machine


def whole(machine: OpenDisks, stretches: Stretches) -> bytes:
    reader = machine.reader(stretches)
    return reader.read(0, reader.size)


def range_of(disk: int, offset: int, length: int) -> Stretches:
    return linear(Segment(disk=disk, offset=offset, length=length))


def in_stripes() -> Stretches:
    return striped([range_of(0, 16 * KIB, 64 * KIB), range_of(1, 0, 64 * KIB)], CHUNK)


def test_stripes_are_read_in_turns(machine: OpenDisks) -> None:
    one, two = machine.disks[0].read(16 * KIB, 64 * KIB), machine.disks[1].read(0, 64 * KIB)
    rows = range(0, 64 * KIB, CHUNK)
    assert whole(machine, in_stripes()) == b"".join(one[at : at + CHUNK] + two[at : at + CHUNK] for at in rows)


@pytest.mark.parametrize("sector", [512, 4096])
def test_what_is_cut_is_what_was_there(machine: OpenDisks, sector: int) -> None:
    plain = (*range_of(1, 128 * KIB, 32 * KIB), *in_stripes(), *range_of(0, 200 * KIB, 8 * KIB))
    how = Crypt.model_validate({"container": "c", "cipher": "aes-xts-plain64", "sector": sector, "iv": 8})
    for stretches in (plain, encrypted(plain, how)):
        content = whole(machine, stretches)
        for offset, length in ((0, 16 * KIB), (4 * KIB, 28 * KIB), (32 * KIB, 32 * KIB), (48 * KIB, 116 * KIB)):
            part = cut(stretches, offset, length)
            assert whole(machine, part) == content[offset : offset + length]
            assert machine.reader(part).read(100, 5000) == content[offset + 100 : offset + 5100]


@pytest.mark.parametrize(("sector", "iv"), [(512, 0), (512, 1 << 33), (4096, 16)])
def test_decryption_is_dm_crypts(machine: OpenDisks, sector: int, iv: int) -> None:
    clear = os.urandom(64 * KIB)
    hidden = b""
    for at in range(0, len(clear), sector):
        tweak = (iv + at // 512).to_bytes(16, "little")
        encryptor = Cipher(algorithms.AES(KEY), modes.XTS(tweak)).encryptor()
        hidden += encryptor.update(clear[at : at + sector])
    machine = OpenDisks([Bytes(hidden)])
    machine.keys["c"] = KEY
    how = Crypt.model_validate({"container": "c", "cipher": "aes-xts-plain64", "sector": sector, "iv": iv})
    assert whole(machine, encrypted(range_of(0, 0, 64 * KIB), how)) == clear


def test_copies_that_are_scattered_differently_are_cut_alike() -> None:
    one = (*range_of(0, 0, 8 * KIB), *range_of(0, 64 * KIB, 24 * KIB))
    two = (*range_of(1, 100 * KIB, 16 * KIB), *range_of(1, 0, 16 * KIB))
    pairs = [tuple((leg.disk, leg.offset, leg.length) for leg in stretch.legs) for stretch in mirrored([one, two])]
    assert pairs == [
        ((0, 0, 8 * KIB), (1, 100 * KIB, 8 * KIB)),
        ((0, 64 * KIB, 8 * KIB), (1, 108 * KIB, 8 * KIB)),
        ((0, 72 * KIB, 16 * KIB), (1, 0, 16 * KIB)),
    ]


def test_what_touches_is_one_stretch() -> None:
    halves = (*range_of(0, 0, 8 * KIB), *range_of(0, 8 * KIB, 8 * KIB))
    assert joined(halves) == range_of(0, 0, 16 * KIB)
    how = Crypt(container="c", cipher="aes-xts-plain64")
    assert joined(encrypted(halves, how)) == encrypted(range_of(0, 0, 16 * KIB), how)
    one, two = (encrypted(half, how)[0] for half in (halves[:1], halves[1:]))  # each counted from 0
    assert len(joined((one, two))) == 2
    assert len(joined((one, *halves[1:]))) == 2
    assert len(joined((*halves[:1], two))) == 2


def refused(make: Callable[[], Stretches], word: str) -> None:
    with pytest.raises(Unmappable, match=word):
        make()


def test_what_cannot_be_flattened_is_named() -> None:
    pair = mirrored([range_of(0, 0, 64 * KIB), range_of(1, 0, 64 * KIB)])
    how = Crypt(container="c", cipher="aes-xts-plain64", sector=4096)
    hidden = encrypted(range_of(0, 0, 64 * KIB), how)
    refused(lambda: cut(in_stripes(), 4 * KIB, 16 * KIB), "inside a stripe")
    refused(lambda: cut(in_stripes(), 0, 8 * KIB), "inside a stripe")
    refused(lambda: cut(hidden, 512, 4096), "inside an encrypted sector")
    refused(lambda: cut(hidden, 0, 65 * KIB), "extends beyond the volume")
    refused(lambda: encrypted(hidden, how), "twice")
    refused(lambda: encrypted(range_of(0, 0, 512), how), "is split")
    refused(lambda: striped([pair, range_of(1, 128 * KIB, 64 * KIB)], CHUNK), "RAID of RAIDs")
    refused(lambda: mirrored([hidden, range_of(1, 0, 64 * KIB)]), "encrypted devices")
    refused(lambda: mirrored([range_of(0, 0, 512), range_of(1, 0, 1024)]), "different lengths")
    refused(lambda: striped([range_of(0, 0, 64 * KIB), range_of(1, 0, 32 * KIB)], CHUNK), "different lengths")
    scattered = (*range_of(0, 0, 8 * KIB), *range_of(0, 64 * KIB, 24 * KIB))
    refused(lambda: striped([scattered, range_of(1, 0, 32 * KIB)], CHUNK), "scattered")


def test_a_mirror_of_one_is_that_one() -> None:
    assert mirrored([range_of(0, 0, 512)]) == (Stretch(legs=(Segment(offset=0, length=512),)),)
