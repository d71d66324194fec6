"""The manifest of an OVF package: the digests of its files (DSP0243, section 5.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from hyper2kvmd.model.disks import DigestAlgorithm

MAX_BYTES = 4 << 20
MAX_LINES = 20_000
ALGORITHMS: Mapping[str, DigestAlgorithm] = {
    "SHA1": "sha1",
    "SHA256": "sha256",
    "SHA384": "sha384",
    "SHA512": "sha512",
    "SHA2256": "sha256",
    "SHA2384": "sha384",
    "SHA2512": "sha512",
}
"""Without hyphens: some writers say SHA-256 or SHA2-256."""
HEX_DIGITS: Mapping[DigestAlgorithm, int] = {"sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}
HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


class Digest(NamedTuple):
    """In lower case."""

    algorithm: DigestAlgorithm
    value: str


@dataclass(frozen=True)
class Manifest:
    digests: Mapping[str, tuple[Digest, ...]]
    """By file name; all of them have to match."""
    unknown: tuple[str, ...] = ()
    """Lines that are no digest."""
    name: str = ""
    """Of the file; empty if there is none."""


def parse_manifest(data: bytes) -> Manifest:
    """What a manifest says. Lines that cannot be read are listed."""
    digests: dict[str, dict[Digest, None]] = {}
    unknown = []
    for line in _lines(data):
        found = parse_digest(line)
        if found is None:
            unknown.append(line)
        else:
            digests.setdefault(found[0], {})[found[1]] = None
    return Manifest({name: tuple(each) for name, each in digests.items()}, tuple(unknown))


def parse_digest(line: str) -> tuple[str, Digest] | None:
    """The file name and the digest in `SHA256(name)= hex` or `SHA256 (name) = hex`; None for anything else."""
    found = parse_line(line)
    if found is None:
        return None
    algorithm, name, value = found
    if len(value) != HEX_DIGITS[algorithm] or not HEXADECIMAL.issuperset(value):
        return None
    return name, Digest(algorithm, value.lower())


def parse_line(line: str) -> tuple[DigestAlgorithm, str, str] | None:
    """Algorithm, file name and value of a line; the certificate has one of the same form."""
    before, equals, value = line.rpartition("=")
    algorithm, opened, name = before.partition("(")
    name = name.rstrip()
    known = ALGORITHMS.get(algorithm.strip().upper().replace("-", ""))
    if not equals or not opened or known is None or not name.endswith(")") or name == ")":
        return None
    return known, name[:-1], value.strip()


def _lines(data: bytes) -> Iterator[str]:
    text = data[:MAX_BYTES].removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
    for line in text.replace("\r", "\n").split("\n", MAX_LINES)[:MAX_LINES]:
        if line.strip(" \t\0"):
            yield line.strip(" \t\0")
