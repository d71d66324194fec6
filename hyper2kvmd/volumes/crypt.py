"""Decryption of sectors as dm-crypt does it, to read a container without privilege.

Sources: the kernel's device-mapper documentation (dm-crypt), IEEE 1619 (XTS), drivers/md/dm-crypt.c for ESSIV.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.ciphers import Cipher as Engine
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from hyper2kvmd.model.disks import Cipher

KEY_BYTES: dict[Cipher, tuple[int, int]] = {"aes-xts-plain64": (32, 64), "aes-cbc-essiv:sha256": (16, 32)}
"""Every supported cipher with its key sizes in bytes."""
IV_UNIT = 512
"""Bytes per step of the initialization vector, for every sector size."""


def decrypt(cipher: Cipher, key: bytes, data: bytes, *, iv: int = 0, sector: int = 512) -> bytes:
    """Decrypt `data`: whole sectors of `sector` bytes, the first with number `iv`."""
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
