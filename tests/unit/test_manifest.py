"""Manifests of every exporter."""

from __future__ import annotations

import hashlib
from typing import get_args

import pytest

from hyper2kvmd.machines import manifest
from hyper2kvmd.machines.manifest import HEX_DIGITS, Digest, parse_manifest
from hyper2kvmd.model.disks import DigestAlgorithm

DIGESTS = {one: hashlib.new(one, b"content").hexdigest() for one in get_args(DigestAlgorithm)}
SHA256 = DIGESTS["sha256"]
FORMS = {
    "SHA1(disk.vmdk)= {}": "sha1",
    "SHA256(disk.vmdk)= {}": "sha256",
    "SHA384(disk.vmdk)= {}": "sha384",
    "SHA512(disk.vmdk)= {}": "sha512",
    "SHA2-256(disk.vmdk)= {}": "sha256",
    "SHA2-512(disk.vmdk)= {}": "sha512",
    "SHA-1(disk.vmdk)= {}": "sha1",
    "SHA256 (disk.vmdk) = {}": "sha256",
    "SHA256(disk.vmdk)={}": "sha256",
    "SHA256(disk.vmdk) = {}\r": "sha256",
    "sha256(disk.vmdk)= {}": "sha256",
    "\ufeffSHA256(disk.vmdk)= {}": "sha256",
    "  SHA256(disk.vmdk)= {}  ": "sha256",
}


@pytest.mark.parametrize(("form", "algorithm"), FORMS.items())
@pytest.mark.parametrize("upper", [False, True])
def test_every_form(form: str, algorithm: DigestAlgorithm, upper: bool) -> None:
    digest = DIGESTS[algorithm]
    found = parse_manifest(form.format(digest.upper() if upper else digest).encode() + b"\n")
    assert found.digests == {"disk.vmdk": (Digest(algorithm, digest),)}
    assert not found.unknown


@pytest.mark.parametrize("name", ["a b.vmdk", "web(01).vmdk", "web01 (1).vmdk", "a=b.vmdk", "磁盘.vmdk", "a)= b.vmdk"])
def test_names_are_exact(name: str) -> None:
    assert [*parse_manifest(f"SHA256({name})= {SHA256}".encode()).digests] == [name]


def test_several_digests_of_a_file_all_count() -> None:
    other = "0" * 64
    text = f"SHA1(a)= {DIGESTS['sha1']}\nSHA256(a)= {SHA256}\nSHA256(a)= {SHA256}\nSHA256(a)= {other}\n"
    expected = (Digest("sha1", DIGESTS["sha1"]), Digest("sha256", SHA256), Digest("sha256", other))
    assert parse_manifest(text.encode()).digests == {"a": expected}


def test_lines_end_in_every_way() -> None:
    line = f"SHA256({{}})= {SHA256}"
    text = "\r\n".join(line.format(name) for name in "ab") + "\r" + line.format("c") + "\n\n\r\n" + line.format("d")
    assert [*parse_manifest(text.encode()).digests] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "line",
    [
        f"MD5(a)= {SHA256[:32]}",
        f"SHA256(a)= {SHA256[:-1]}",
        f"SHA256(a)= {SHA256[:-1]}g",
        f"SHA256(a)= {SHA256}0",
        f"SHA256 a = {SHA256}",
        f"SHA256()= {SHA256}",
        f"SHA256(a) {SHA256}",
        f"{SHA256}  a",
        "SHA256(a)=",
        "(a)=",
        "<html>",
        "\x00\x01\x02",
    ],
)
def test_other_lines_are_listed(line: str) -> None:
    found = parse_manifest(f"SHA256(b)= {SHA256}\n{line}\n".encode())
    assert [*found.digests] == ["b"]
    assert len(found.unknown) == 1


def test_digests_have_their_length() -> None:
    assert {one: len(digest) for one, digest in DIGESTS.items()} == HEX_DIGITS


def test_a_manifest_without_end() -> None:
    found = parse_manifest(b"x\n" * 4_000_000)
    assert len(found.unknown) <= 20_000


def test_many_digests_of_one_file_are_compared_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    class Counted(Digest):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return super().__eq__(other)

        __hash__ = Digest.__hash__

    monkeypatch.setattr(manifest, "Digest", Counted)
    lines = [f"SHA256(a)= {number:064x}" for number in range(1000)] * 2
    found = parse_manifest("\n".join(lines).encode())
    assert len(found.digests["a"]) == 1000
    assert 1000 <= compared < 3000
