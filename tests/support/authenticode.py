"""Signatures of Windows by the tests' own hand: certificates, catalogues and signed programs."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from tests.support.disks import sh

Key: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
SEQUENCE, SET, OCTETS, INTEGER, OID = 0x30, 0x31, 0x04, 0x02, 0x06
DIGESTS = {
    "sha1": "1.3.14.3.2.26",
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
}
HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
INDIRECT, TRUST_LIST = "1.3.6.1.4.1.311.2.1.4", "1.3.6.1.4.1.311.10.1"
CODE_SIGNING, CERTIFIED, ATTESTED = "1.3.6.1.5.5.7.3.3", "1.3.6.1.4.1.311.10.3.5", "1.3.6.1.4.1.311.10.3.5.1"


def der(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    out = bytearray()
    for number in (first * 40 + second, *rest):
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(number & 0x7F | 0x80)
        out += bytes(reversed(groups))
    return der(OID, bytes(out))


def algorithm(name: str) -> bytes:
    return der(SEQUENCE, oid(DIGESTS[name]), der(0x05))


@dataclass(frozen=True)
class Authority:
    """A signer; `issuer` is None for a certificate that signs itself."""

    key: Key
    certificate: x509.Certificate
    issuer: x509.Certificate | None = None
    digest: str = "sha256"
    spoiled: bool = False
    """Its signatures are wrong."""

    def sign_driver(self, data: bytes) -> bytes:
        """A program with an embedded signature."""
        return with_signature(
            data, self.signed(INDIRECT, indirect(self.digest, authenticode_digest(data, self.digest)))
        )

    def sign_catalog(self, digests: Sequence[bytes]) -> bytes:
        return self.signed(TRUST_LIST, trust_list(digests))

    def signed(self, kind: str, content: bytes, more: bytes = b"") -> bytes:
        """PKCS#7; `more` are unsigned attributes of the signer."""
        digest = hashlib.new(self.digest, _content(content), usedforsecurity=False).digest()
        attributes = der(SEQUENCE, oid("1.2.840.113549.1.9.3"), der(SET, oid(kind)))
        attributes += der(SEQUENCE, oid("1.2.840.113549.1.9.4"), der(SET, der(OCTETS, digest)))
        signature = self._signature(der(SET, attributes))
        number = self.certificate.serial_number
        serial = der(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))
        encryption = "1.2.840.113549.1.1.1" if isinstance(self.key, rsa.RSAPrivateKey) else "1.2.840.10045.2.1"
        signer = der(
            SEQUENCE,
            der(INTEGER, b"\1"),
            der(SEQUENCE, self.certificate.issuer.public_bytes(), serial),
            algorithm(self.digest),
            der(0xA0, attributes),
            der(SEQUENCE, oid(encryption), der(0x05)),
            der(OCTETS, signature),
            der(0xA1, more) if more else b"",
        )
        chain = [self.certificate, *filter(None, [self.issuer])]
        body = der(
            SEQUENCE,
            der(INTEGER, b"\1"),
            der(SET, algorithm(self.digest)),
            der(SEQUENCE, oid(kind), der(0xA0, content)),
            der(0xA0, *(one.public_bytes(serialization.Encoding.DER) for one in chain)),
            der(SET, signer),
        )
        return der(SEQUENCE, oid("1.2.840.113549.1.7.2"), der(0xA0, body))

    def _signature(self, data: bytes) -> bytes:
        data += b"spoiled" if self.spoiled else b""
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, padding.PKCS1v15(), HASHES[self.digest])
        return self.key.sign(data, ec.ECDSA(HASHES[self.digest]))

    def with_tool(self, folder: Path, digest: str = "sha256") -> ToolSigner:
        folder.mkdir(parents=True, exist_ok=True)
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        form = serialization.PrivateFormat.PKCS8
        key.write_bytes(self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        certificate.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return ToolSigner(folder, key, certificate, digest)


@dataclass(frozen=True)
class ToolSigner:
    """The same signatures, by osslsigncode."""

    folder: Path
    key: Path
    certificate: Path
    digest: str

    def sign_driver(self, data: bytes) -> bytes:
        return self._sign(data, ".sys")

    def sign_catalog(self, digests: Sequence[bytes]) -> bytes:
        return self._sign(unsigned(TRUST_LIST, trust_list(digests)), ".cat")

    def _sign(self, data: bytes, suffix: str) -> bytes:
        plain, signed = self.folder / f"plain{suffix}", self.folder / f"signed{suffix}"
        plain.write_bytes(data)
        signed.unlink(missing_ok=True)
        sh(
            *("osslsigncode", "sign", "-h", self.digest, "-certs", self.certificate, "-key", self.key),
            *("-in", plain, "-out", signed),
        )
        return signed.read_bytes()


@cache
def authority(
    subject: str = "WDKTestCert tester",
    *,
    issuer: str = "",
    organization: str = "",
    uses: tuple[str, ...] = (CODE_SIGNING,),
    key: str = "ec",
) -> Authority:
    """A certificate with a common name, of another authority if `issuer` names one."""
    own = _key(key)
    name = _name(subject, organization)
    if not issuer:
        return Authority(own, _certificate(name, name, own, own, uses))
    above = _key(key)
    upper = _name(issuer, organization)
    return Authority(
        own, _certificate(name, upper, own, above, uses), _certificate(upper, upper, above, above, (CODE_SIGNING,))
    )


VENDOR = {"subject": "Red Hat, Inc.", "issuer": "Symantec Class 3 SHA256 Code Signing CA"}
PUBLISHER = "Microsoft Windows Hardware Compatibility Publisher"
PUBLISHERS = "Microsoft Windows Third Party Component CA 2014"


def vendor() -> Authority:
    return authority(**VENDOR)


def microsoft(use: str, key: str = "ec") -> Authority:
    return authority(
        PUBLISHER, issuer=PUBLISHERS, organization="Microsoft Corporation", uses=(CODE_SIGNING, use), key=key
    )


def spoiled(one: Authority) -> Authority:
    return replace(one, spoiled=True)


def _key(kind: str) -> Key:
    return rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())


def _name(common: str, organization: str) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organization:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(parts)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: Key, signer: Key, uses: tuple[str, ...]
) -> x509.Certificate:
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    builder = builder.not_valid_after(datetime(2040, 1, 1, tzinfo=UTC))
    use = x509.ExtendedKeyUsage([x509.ObjectIdentifier(one) for one in uses])
    builder = builder.add_extension(x509.BasicConstraints(ca=subject == issuer, path_length=None), critical=True)
    return builder.add_extension(use, critical=False).sign(signer, hashes.SHA256())


# ---------------------------------------------------------------- what is signed


def indirect(name: str, digest: bytes) -> bytes:
    """Of one file."""
    link = der(0xA2, der(0x80, "<<<Obsolete>>>".encode("utf-16-be")))
    subject = der(SEQUENCE, oid("1.3.6.1.4.1.311.2.1.15"), der(SEQUENCE, der(0x03, b"\0"), der(0xA0, link)))
    return der(SEQUENCE, subject, der(SEQUENCE, algorithm(name), der(OCTETS, digest)))


def trust_list(digests: Sequence[bytes]) -> bytes:
    """The content of a catalogue; the length of a digest shows its algorithm."""
    return der(
        SEQUENCE,
        der(SEQUENCE, oid("1.3.6.1.4.1.311.12.1.1")),
        der(OCTETS, hashlib.md5(b"".join(digests), usedforsecurity=False).digest()),
        der(0x17, b"220112000000Z"),
        der(SEQUENCE, oid("1.3.6.1.4.1.311.12.1.3"), der(0x05)),
        der(SEQUENCE, *map(_listed, digests)),
    )


def _listed(digest: bytes) -> bytes:
    name = next(name for name in DIGESTS if hashlib.new(name).digest_size == len(digest))
    attribute = der(SEQUENCE, oid(INDIRECT), der(SET, indirect(name, digest)))
    return der(SEQUENCE, der(OCTETS, digest), der(SET, attribute))


def unsigned(kind: str, content: bytes) -> bytes:
    body = der(SEQUENCE, der(INTEGER, b"\1"), der(SET), der(SEQUENCE, oid(kind), der(0xA0, content)), der(SET))
    return der(SEQUENCE, oid("1.2.840.113549.1.7.2"), der(0xA0, body))


def nested(other: bytes) -> bytes:
    """The attribute with another signature of the same file."""
    return der(SEQUENCE, oid("1.3.6.1.4.1.311.2.4.1"), der(SET, other))


def _content(element: bytes) -> bytes:
    """Without tag and length."""
    size = element[1]
    return element[2:] if size < 0x80 else element[2 + (size & 0x7F) :]


# ---------------------------------------------------------------- programs


def authenticode_digest(data: bytes, name: str = "sha256") -> bytes:
    """Of a program that is not signed, by arithmetic of the tests."""
    checksum, certificates = _places(data)
    rest = data[:checksum] + data[checksum + 4 : certificates] + data[certificates + 8 :]
    return hashlib.new(name, rest + bytes(-len(data) % 8), usedforsecurity=False).digest()


def with_signature(data: bytes, *signatures: bytes) -> bytes:
    _, at = _places(data)
    padded = data + bytes(-len(data) % 8)
    table = b"".join(struct.pack("<IHH", 8 + len(one), 0x200, 2) + one + bytes(-len(one) % 8) for one in signatures)
    return padded[:at] + struct.pack("<II", len(padded), len(table)) + padded[at + 8 :] + table


def _places(data: bytes) -> tuple[int, int]:
    """Of the checksum, and of the directory entry of the signatures."""
    (header,) = struct.unpack_from("<I", data, 0x3C)
    optional = header + 24
    wide = data[optional : optional + 2] == b"\x0b\x02"
    return optional + 64, optional + (112 if wide else 96) + 32
