"""Values of registry keys: their types, and how data is read as text, lists and numbers."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

REG_NONE, REG_SZ, REG_EXPAND_SZ, REG_BINARY, REG_DWORD, REG_DWORD_BIG_ENDIAN, REG_LINK, REG_MULTI_SZ = range(8)
REG_QWORD = 11
TEXTS = (REG_SZ, REG_EXPAND_SZ, REG_LINK, REG_MULTI_SZ)


@dataclass(frozen=True)
class Value:
    """A value of a key. `name` is empty for the default value; `type` is one of the REG_ numbers or any other."""

    name: str
    type: int
    data: bytes

    @classmethod
    def sz(cls, name: str, text: str) -> Value:
        return cls(name, REG_SZ, _encoded(text))

    @classmethod
    def expand_sz(cls, name: str, text: str) -> Value:
        return cls(name, REG_EXPAND_SZ, _encoded(text))

    @classmethod
    def multi_sz(cls, name: str, texts: Iterable[str]) -> Value:
        return cls(name, REG_MULTI_SZ, b"".join(map(_encoded, texts)) + b"\0\0")

    @classmethod
    def dword(cls, name: str, number: int) -> Value:
        return cls(name, REG_DWORD, struct.pack("<I", number))

    @classmethod
    def qword(cls, name: str, number: int) -> Value:
        return cls(name, REG_QWORD, struct.pack("<Q", number))

    @classmethod
    def binary(cls, name: str, data: bytes) -> Value:
        return cls(name, REG_BINARY, data)

    def text(self) -> str:
        """The text up to its first NUL. Empty if the value has no text."""
        return _decoded(self.data).partition("\0")[0] if self.type in TEXTS else ""

    def texts(self) -> tuple[str, ...]:
        """The texts of a REG_MULTI_SZ without empty ones; of another text the one it has; none of anything else."""
        if self.type != REG_MULTI_SZ:
            return (self.text(),) if self.text() else ()
        return tuple(filter(None, _decoded(self.data).split("\0")))

    def number(self) -> int | None:
        """An unsigned number, from a REG_DWORD or REG_QWORD of the right size."""
        match self.type, len(self.data):
            case (4, 4) | (11, 8):
                return int.from_bytes(self.data, "little")
            case (5, 4):
                return int.from_bytes(self.data, "big")
        return None


def _encoded(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass") + b"\0\0"


def _decoded(data: bytes) -> str:
    """Half a character at the end is left out; a surrogate without its other half stays one."""
    return data[: len(data) // 2 * 2].decode("utf-16-le", "surrogatepass")
