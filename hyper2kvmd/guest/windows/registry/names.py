"""Names of keys and values: how they are stored, compared and hashed."""

from __future__ import annotations

from functools import lru_cache

PATH_SEPARATOR = "\\"
KEY_NAME_LIMIT = 255
VALUE_NAME_LIMIT = 16383
"""Characters; Windows accepts no longer ones."""


def encoded(name: str) -> tuple[bytes, bool]:
    """The stored form, and whether it is the compressed one: one byte for each character."""
    try:
        return name.encode("latin-1"), True
    except UnicodeEncodeError:
        return name.encode("utf-16-le", "surrogatepass"), False


def decoded(data: bytes, *, compressed: bool) -> str:
    """Half a character at the end is left out."""
    if compressed:
        return data.decode("latin-1")
    return data[: len(data) // 2 * 2].decode("utf-16-le", "surrogatepass")


def upcase(name: str) -> str:
    """As Windows compares names: one character becomes one character, and only if it has the other case."""
    return name.upper() if name.isascii() else "".join(map(_upper, name))


def _upper(character: str) -> str:
    upper = character.upper()
    return upper if len(upper) == 1 and upper.lower() == character else character


@lru_cache(maxsize=4096)
def sort_key(name: str) -> bytes:
    """The order of subkeys in their lists: by UTF-16 code units in upper case."""
    return upcase(name).encode("utf-16-be", "surrogatepass")


@lru_cache(maxsize=4096)
def name_hash(name: str) -> int:
    """The hash of a hash leaf (lh)."""
    total = 0
    units = sort_key(name)
    for at in range(0, len(units), 2):
        total = total * 37 + (units[at] << 8 | units[at + 1]) & 0xFFFFFFFF
    return total


def name_hint(name: str) -> int:
    """The hint of a fast leaf (lf): the first four characters, or 0 if one of them has no single byte."""
    start = name[:4]
    return int.from_bytes(start.encode("latin-1"), "little") if all(ord(each) < 256 for each in start) else 0


def parts(path: str) -> tuple[str, ...]:
    return tuple(filter(None, path.split(PATH_SEPARATOR)))
