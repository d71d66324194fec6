"""LUKS containers opened without privilege: headers, key slots, and the parameters for dm-crypt.

A header may be hostile: its texts are bounded, its checksum is verified, and key derivations that cost more than real
ones are refused. All containers of a machine share one budget.

Sources: LUKS1 On-Disk Format Specification 1.2.3, LUKS2 On-Disk Format Specification 1.1.1, RFC 9106 (Argon2).
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cryptography.hazmat.primitives.kdf.argon2 import Argon2i, Argon2id
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from hyper2kvmd.model.disks import Cipher, Crypt, SectorSize
from hyper2kvmd.volumes import crypt
from hyper2kvmd.volumes.budget import Budget, Exhausted
from hyper2kvmd.volumes.superblock import BlockReader

SECTOR = 512
MAGICS = (b"LUKS\xba\xbe", b"SKUL\xba\xbe")
HEADER_SIZES = tuple(1 << power for power in range(14, 23))
"""Allowed sizes of a LUKS2 header in bytes, JSON included."""
ACTIVE = 0x00AC71F3
STRIPES = 4000
DAMAGED = "its LUKS header is damaged"
HASHES = ("sha1", "sha256", "sha512")
ITERATIONS_LIMIT = 150_000_000
"""Of PBKDF2, in all key slots together: a minute. By default cryptsetup chooses two seconds for each."""
MEMORY_LIMIT = 4 << 20
"""Of Argon2, in KiB: cryptsetup's own limit."""
COST_LIMIT = 64 << 20
"""Of Argon2, passes times KiB, in all key slots together: a minute."""
BLOCKS_A_SECOND = {"sha1": 2_500_000, "sha256": 2_500_000, "sha512": 1_000_000}
"""Of PBKDF2: iterations per second on one core, each for one block of the digest's size."""
KIB_A_SECOND = 1 << 20
"""Of Argon2: passes times KiB."""
SLOT_SECONDS = 0.05
"""For the anti-forensic stripes of one key slot."""
HEADER_BYTES_A_SECOND = 20 << 20
REMEMBERED = 1024
"""Derived keys; enough for the containers, keys and slots of a normal machine."""


class Locked(Exception):
    """Why a container stays closed, as text to follow its name."""


@dataclass(frozen=True)
class Unlocked:
    """An opened container: `length` bytes at its `offset` are encrypted with `key` and `how`."""

    how: Crypt
    offset: int
    length: int
    key: bytes = field(repr=False)


# ---------------------------------------------------------------- content of a header, of either version


@dataclass(frozen=True)
class _Derivation:
    """A key derivation. `cost` is PBKDF2's iterations or Argon2's passes; `memory` is in KiB."""

    kind: str
    salt: bytes
    cost: int
    hash: str = "sha256"
    memory: int = 0
    lanes: int = 1

    @property
    def possible(self) -> bool:
        if self.kind == "pbkdf2":
            return self.cost > 0
        fair = 8 * self.lanes <= self.memory <= MEMORY_LIMIT and 0 < self.lanes <= 64 and len(self.salt) >= 8
        return self.cost > 0 and fair

    def seconds(self, length: int) -> float:
        """Estimated time to derive `length` bytes."""
        if self.kind != "pbkdf2":
            return self.cost * self.memory / KIB_A_SECOND
        blocks = -(-length // hashlib.new(self.hash).digest_size)
        return self.cost * blocks / BLOCKS_A_SECOND[self.hash]


@dataclass(frozen=True)
class _Slot:
    derivation: _Derivation
    cipher: str
    key_bytes: int
    offset: int
    hash: str


@dataclass(frozen=True)
class _Header:
    uuid: str
    slots: tuple[_Slot, ...]
    digest: _Derivation
    wanted: bytes
    key_bytes: int
    cipher: str
    offset: int
    length: int | None
    sector: SectorSize
    iv: int


def unlock(reader: BlockReader, keys: Iterable[bytes], budget: Budget) -> Unlocked:
    """Open the container in `reader` with the first of `keys` that fits one of its key slots.

    A key is the content of a key file, or a passphrase; a line end after a passphrase in a file is not part of it.
    Raises Locked, also when `budget` is used up.
    """
    try:
        return _unlock(reader, keys, budget)
    except Exhausted as reason:
        raise Locked(f"it is encrypted, and {reason}") from None


def _unlock(reader: BlockReader, keys: Iterable[bytes], budget: Budget) -> Unlocked:
    header = _header(reader, budget)
    if not header.slots:
        raise Locked("it is encrypted, and has no key slot of a supported kind")
    cipher = _cipher(header.cipher, header.key_bytes)
    length = header.length if header.length is not None else reader.size - header.offset
    length -= length % header.sector
    if length <= 0 or header.offset % SECTOR or header.offset + length > reader.size or not header.wanted:
        raise Locked(DAMAGED)
    candidates = dict.fromkeys(text for key in keys for text in (key, key.removesuffix(b"\n")))
    if not candidates:
        raise Locked("it is encrypted, and no key was given")
    _check_cost([slot.derivation for slot in header.slots] + [header.digest])
    for text in candidates:
        for slot in header.slots:
            budget.spend(_seconds_of(header, slot))
            key = _open_slot(reader, header, slot, text)
            if hmac.compare_digest(_derive(header.digest, key, len(header.wanted)), header.wanted):
                how = Crypt(container=header.uuid, cipher=cipher, sector=header.sector, iv=header.iv)
                return Unlocked(how, header.offset, length, key)
    raise Locked("it is encrypted, and none of the given keys opens it")


def _cipher(name: str, key_bytes: int) -> Cipher:
    for known, sizes in crypt.KEY_BYTES.items():
        if known == name and key_bytes in sizes:
            return known
    raise Locked(f"its cipher is {name[:40]} with {key_bytes * 8} bits, which is not supported")


def _check_cost(derivations: list[_Derivation]) -> None:
    iterations = sum(how.cost for how in derivations if how.kind == "pbkdf2")
    passes = sum(how.cost * how.memory for how in derivations if how.kind != "pbkdf2")
    possible = all(how.possible for how in derivations)
    if not possible or iterations > ITERATIONS_LIMIT or passes > COST_LIMIT:
        raise Locked("its header has unrealistic key derivation parameters")


def _seconds_of(header: _Header, slot: _Slot) -> float:
    """Estimated time to try one key on one slot."""
    return SLOT_SECONDS + slot.derivation.seconds(slot.key_bytes) + header.digest.seconds(len(header.wanted))


def _open_slot(reader: BlockReader, header: _Header, slot: _Slot, text: bytes) -> bytes:
    """The result of this slot for `text`: the volume key if `text` is right."""
    cipher = _cipher(slot.cipher, slot.key_bytes)
    size = header.key_bytes * STRIPES
    if slot.offset + size > header.offset:
        raise Locked(DAMAGED)
    derived = _derive(slot.derivation, text, slot.key_bytes)
    return _merge(crypt.decrypt(cipher, derived, reader.read(slot.offset, size)), header.key_bytes, slot.hash)


@functools.lru_cache(maxsize=REMEMBERED)
def _derive(how: _Derivation, text: bytes, length: int) -> bytes:
    """Cached: a layout is read several times in one migration, and this is slow by design."""
    if how.kind == "pbkdf2":
        return hashlib.pbkdf2_hmac(how.hash, text, how.salt, how.cost, length)
    argon2 = Argon2i if how.kind == "argon2i" else Argon2id
    try:
        return argon2(
            salt=how.salt, length=length, iterations=how.cost, lanes=how.lanes, memory_cost=how.memory
        ).derive(text)
    except MemoryError:
        raise Locked(f"the derivation of its key needs {how.memory >> 10} MiB of memory, which are not free") from None


def _merge(material: bytes, length: int, name: str) -> bytes:
    """The key that the anti-forensic splitter split into stripes."""
    state = bytes(length)
    for at in range(0, len(material), length):
        state = bytes(a ^ b for a, b in zip(state, material[at : at + length], strict=True))
        if at + length < len(material):
            state = _diffuse(state, name)
    return state


def _diffuse(block: bytes, name: str) -> bytes:
    size = hashlib.new(name).digest_size
    pieces = (block[at : at + size] for at in range(0, len(block), size))
    return b"".join(
        hashlib.new(name, struct.pack(">I", number) + piece).digest()[: len(piece)]
        for number, piece in enumerate(pieces)
    )


def _header(reader: BlockReader, budget: Budget) -> _Header:
    start = reader.read(0, 592)
    version = struct.unpack_from(">H", start, 6)[0] if start[:6] == MAGICS[0] else 2
    if version == 1:
        return _version_1(start)
    for at in (0, *HEADER_SIZES):
        text = _json_area(reader, at, budget)
        if text is not None:
            return _version_2(*text)
    raise Locked(DAMAGED)


# ---------------------------------------------------------------- LUKS1


def _version_1(start: bytes) -> _Header:
    cipher, mode, digest_hash = (_text(start[at : at + 32]) for at in (8, 40, 72))
    offset, key_bytes = struct.unpack_from(">II", start, 104)
    _known(digest_hash)
    slots = []
    for at in range(208, 592, 48):
        active, iterations, salt, material, stripes = struct.unpack_from(">II32sII", start, at)
        if active == ACTIVE:
            if stripes != STRIPES:
                raise Locked(DAMAGED)
            derivation = _Derivation("pbkdf2", salt, iterations, digest_hash)
            slots.append(_Slot(derivation, f"{cipher}-{mode}", key_bytes, material * SECTOR, digest_hash))
    return _Header(
        uuid=_text(start[168:208]),
        slots=tuple(slots),
        digest=_Derivation("pbkdf2", start[132:164], struct.unpack_from(">I", start, 164)[0], digest_hash),
        wanted=start[112:132],
        key_bytes=key_bytes,
        cipher=f"{cipher}-{mode}",
        offset=offset * SECTOR,
        length=None,
        sector=512,
        iv=0,
    )


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("ascii", errors="replace")


def _known(name: str) -> str:
    if name not in HASHES:
        raise Locked(f"its hash is {name[:40]}, which is not supported")
    return name


# ---------------------------------------------------------------- LUKS2


def _json_area(reader: BlockReader, at: int, budget: Budget) -> tuple[str, bytes] | None:
    """UUID and JSON text of the header at `at` if its checksum is right."""
    if at + 4096 > reader.size:
        return None
    head = reader.read(at, 4096)
    version, size = struct.unpack_from(">HQ", head, 6)
    stated = struct.unpack_from(">Q", head, 256)[0]
    if (
        head[:6] != MAGICS[at > 0]
        or version != 2
        or size not in HEADER_SIZES
        or stated != at
        or at + size > reader.size
    ):
        return None
    budget.spend(size / HEADER_BYTES_A_SECOND)
    text = reader.read(at + 4096, size - 4096)
    name = _known(_text(head[72:104]))
    found = hashlib.new(name, head[:448] + bytes(64) + head[512:] + text).digest()
    if found != head[448 : 448 + len(found)]:
        return None
    return _text(head[168:208]), text.partition(b"\0")[0]


def _decoded(value: object) -> object:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except binascii.Error:
        raise ValueError("not base64") from None


class _Part(BaseModel):
    """The JSON that is read; byte counts are strings in it."""

    model_config = ConfigDict(extra="ignore", frozen=True)


Base64 = Annotated[bytes, BeforeValidator(_decoded), Field(max_length=1024)]
Bytes = Annotated[int, Field(ge=0, lt=1 << 62)]


class _Kdf(_Part):
    type: Literal["pbkdf2", "argon2i", "argon2id"]
    salt: Base64
    hash: str = "sha256"
    iterations: int = 0
    time: int = 0
    memory: int = 0
    cpus: int = 1


class _Af(_Part):
    type: Literal["luks1"]
    stripes: Literal[4000]
    hash: str


class _Area(_Part):
    offset: Bytes
    encryption: str
    key_size: int


class _Keyslot(_Part):
    type: str
    key_size: int
    kdf: _Kdf
    af: _Af
    area: _Area
    priority: int = 1


class _Segment(_Part):
    type: str
    offset: Bytes
    size: Bytes | Literal["dynamic"]
    iv_tweak: Bytes
    encryption: str
    sector_size: SectorSize
    integrity: dict[str, Any] | None = None
    flags: tuple[str, ...] = ()


class _Digest(_Part):
    type: Literal["pbkdf2"]
    keyslots: tuple[str, ...]
    segments: tuple[str, ...]
    hash: str
    iterations: int
    salt: Base64
    digest: Base64


class _Requirements(_Part):
    mandatory: tuple[str, ...] = ()


class _Config(_Part):
    requirements: _Requirements = _Requirements()


class _Metadata(_Part):
    keyslots: Annotated[dict[str, dict[str, Any]], Field(max_length=32)]
    segments: dict[str, dict[str, Any]]
    digests: Annotated[dict[str, _Digest], Field(max_length=32)]
    config: _Config


def _version_2(uuid: str, text: bytes) -> _Header:
    try:
        told = _Metadata.model_validate(json.loads(text))
        if told.config.requirements.mandatory:
            raise Locked(f"it needs {', '.join(told.config.requirements.mandatory)[:80]}, which is not supported")
        if list(told.segments) != ["0"] or told.segments["0"].get("type") != "crypt":
            raise Locked("it is being re-encrypted, or keeps its keys in hardware")
        segment = _Segment.model_validate(told.segments["0"])
        digest = next((digest for digest in told.digests.values() if "0" in digest.segments), None)
        if digest is None:
            raise Locked(DAMAGED)
        named = {name: told.keyslots[name] for name in digest.keyslots if name in told.keyslots}
        slots = [_Keyslot.model_validate(value) for value in named.values() if value.get("type") == "luks2"]
    except (ValueError, ValidationError, RecursionError):
        raise Locked(DAMAGED) from None
    if segment.integrity is not None:
        raise Locked("its sectors carry integrity tags, which are not supported")
    sizes = {slot.key_size for slot in slots}
    if len(sizes) > 1:
        raise Locked(DAMAGED)
    return _Header(
        uuid=uuid,
        slots=tuple(_slot(slot) for slot in slots if slot.priority > 0),
        digest=_Derivation("pbkdf2", digest.salt, digest.iterations, _known(digest.hash)),
        wanted=digest.digest,
        key_bytes=next(iter(sizes), 0),
        cipher=segment.encryption,
        offset=segment.offset,
        length=None if segment.size == "dynamic" else segment.size,
        sector=segment.sector_size,
        iv=segment.iv_tweak,
    )


def _slot(slot: _Keyslot) -> _Slot:
    kdf = slot.kdf
    cost = kdf.iterations if kdf.type == "pbkdf2" else kdf.time
    derivation = _Derivation(kdf.type, kdf.salt, cost, _known(kdf.hash), kdf.memory, kdf.cpus)
    return _Slot(derivation, slot.area.encryption, slot.area.key_size, slot.area.offset, _known(slot.af.hash))
