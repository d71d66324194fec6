"""Disk encryption as dm-crypt does it: sectors decrypted one by one, for reading a container without privilege.

Sources: the kernel's device-mapper documentation (dm-crypt), IEEE 1619 (XTS), drivers/md/dm-crypt.c for ESSIV.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.ciphers import Cipher as Engine
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from hyper2kvmd.model.disks import Cipher

KEY_BYTES: dict[Cipher, tuple[int, int]] = {"aes-xts-plain64": (32, 64), "aes-cbc-essiv:sha256": (16, 32)}
"""Every cipher that is decrypted here, with its key sizes."""
IV_UNIT = 512
"""Bytes that an initialization vector counts as one, however large a sector is."""


def decrypt(cipher: Cipher, key: bytes, data: bytes, *, iv: int = 0, sector: int = 512) -> bytes:
    """`data`, whole sectors of `sector` bytes, the first of which has the number `iv`."""
    step = sector // IV_UNIT
    return b"".join(
        _sector(cipher, key, data[at : at + sector], iv + at // sector * step) for at in range(0, len(data), sector)
    )


def _sector(cipher: Cipher, key: bytes, data: bytes, number: int) -> bytes:
    plain = number.to_bytes(16, "little")
    mode: modes.XTS | modes.CBC
    if cipher == "aes-xts-plain64":
        mode = modes.XTS(plain)
    else:
        salted = Engine(algorithms.AES(hashlib.sha256(key).digest()), modes.ECB()).encryptor()  # noqa: S305 - one block
        mode = modes.CBC(salted.update(plain))
    decryptor = Engine(algorithms.AES(key), mode).decryptor()
    return decryptor.update(data) + decryptor.finalize()
