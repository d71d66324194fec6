"""LUKS1 and LUKS2 headers that no key opens, with key derivations of any cost."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from hyper2kvmd.volumes import luks

SECTOR = 512
SALT = base64.b64encode(bytes(32)).decode()


def header_of(*, salt: bytes = bytes(32), seconds: float = 1.0) -> bytes:
    """A LUKS1 header with one key slot, whose derivation takes about so long."""
    iterations = 1 + int(seconds * luks.BLOCKS_A_SECOND["sha256"] / 2)  # a key of two blocks
    head = bytearray(struct.pack(">6sH32s32s32sII", b"LUKS\xba\xbe", 1, b"aes", b"xts-plain64", b"sha256", 600, 64))
    head += b"w" * 20 + salt + struct.pack(">I40s", 1, str(uuid.uuid4()).encode())
    head += struct.pack(">II32sII", luks.ACTIVE, iterations, salt, 8, luks.STRIPES)
    return bytes(head.ljust(592, b"\0"))


def _container(slots: int, kdf: Mapping[str, object], digest_iterations: int) -> bytes:
    """A LUKS2 container of 8 MiB with so many key slots."""
    area: dict[str, object] = {"offset": "32768", "encryption": "aes-xts-plain64", "key_size": 64}
    af = {"type": "luks1", "stripes": 4000, "hash": "sha256"}
    slot = {"type": "luks2", "key_size": 64, "kdf": kdf, "af": af, "area": area}
    segment: dict[str, object] = {"type": "crypt", "offset": str(4 << 20), "size": "dynamic", "iv_tweak": "0"}
    segment |= {"encryption": "aes-xts-plain64", "sector_size": 512}
    names = [str(number) for number in range(slots)]
    digest: dict[str, object] = {"type": "pbkdf2", "keyslots": names, "segments": ["0"], "hash": "sha256", "salt": SALT}
    digest |= {"iterations": digest_iterations, "digest": base64.b64encode(b"w" * 32).decode()}
    told = {"keyslots": dict.fromkeys(names, slot), "segments": {"0": segment}, "digests": {"0": digest}, "config": {}}
    head = bytearray(16384)
    struct.pack_into(">6sHQ", head, 0, b"LUKS\xba\xbe", 2, len(head))
    head[72:78], head[168:204] = b"sha256", str(uuid.uuid4()).encode()
    head[4096:] = json.dumps(told).encode().ljust(len(head) - 4096, b"\0")
    head[448:480] = hashlib.sha256(head).digest()
    return bytes(head) + os.urandom(16) + bytes((8 << 20) - len(head) - 16)


def _pbkdf2(name: str, blocks_a_second: int) -> Mapping[str, object]:
    """What cryptsetup chooses on a machine of that speed: two seconds for the blocks of the key."""
    blocks = 64 // hashlib.new(name).digest_size
    return {"type": "pbkdf2", "hash": name, "salt": SALT, "iterations": 2 * blocks_a_second // blocks}


ARGON2 = {"type": "argon2id", "salt": SALT, "time": 4, "memory": 4 << 20, "cpus": 4}

HONEST: Mapping[str, Callable[[], bytes]] = MappingProxyType(
    {
        "sha256": partial(_container, 3, _pbkdf2("sha256", 8_000_000), 1_000_000),
        "sha512": partial(_container, 3, _pbkdf2("sha512", 3_000_000), 1_000_000),
        "argon2id": partial(_container, 1, ARGON2, 1_000_000),
    }
)
"""Containers as a fast machine makes them."""
