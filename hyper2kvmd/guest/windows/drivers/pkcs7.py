"""Signed data of Authenticode: a digest or a catalogue, the signer's certificate, and whether its signature is right.

Sources: RFC 5652; Microsoft, "Windows Authenticode Portable Executable Signature Format"; [MS-CAESO] for certificate
trust lists. The chain of certificates is not followed to a trusted root: Windows does that when it loads the driver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from hyper2kvmd.guest.windows.drivers.der import INTEGER, OCTETS, OID, SEQUENCE, SET, DerElement, NotDer, parse

LARGEST = 4 << 20
"""Bytes; a catalogue of virtio-win has about 10 KiB."""
MOST_CERTIFICATES = 32
SIGNED_DATA, MESSAGE_DIGEST = "1.2.840.113549.1.7.2", "1.2.840.113549.1.9.4"
INDIRECT_DATA, TRUST_LIST = "1.3.6.1.4.1.311.2.1.4", "1.3.6.1.4.1.311.10.1"
CONTENT, CERTIFICATES = 0xA0, 0xA0
SIGNED_ATTRIBUTES, UNSIGNED_ATTRIBUTES = 0xA0, 0xA1
NESTED, MOST_NESTED = "1.3.6.1.4.1.311.2.4.1", 4
DIGESTS = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - the signer's choice
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
Digest = tuple[str, bytes]
"""Name of the algorithm, and value."""


class NotSigned(ValueError):
    """The bytes are no signed data, contradict themselves, or their signature is wrong."""


@dataclass(frozen=True)
class Signed:
    signer: x509.Certificate
    certificates: tuple[x509.Certificate, ...]
    """All that are included; the signer's first."""
    digests: frozenset[Digest]
    """What is signed: the digest of one file, or those in a catalogue."""
    others: tuple[bytes, ...] = ()
    """Further signatures of the same file, within this one."""


def read_signed(data: bytes) -> Signed:
    """Raises NotSigned."""
    if len(data) > LARGEST:
        raise NotSigned(f"it has more than {LARGEST >> 20} MiB")
    try:
        return _read(data)
    except NotSigned:
        raise
    except NotDer as error:
        raise NotSigned(f"it is damaged: {error}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise NotSigned(f"its certificates cannot be used: {error}") from error


def _read(data: bytes) -> Signed:
    outer = parse(data).expect(SEQUENCE)
    if outer.child(0, OID).oid != SIGNED_DATA:
        raise NotSigned("it is no signed data")
    fields = outer.child(1, CONTENT).child(0, SEQUENCE).children()
    if len(fields) < 4:
        raise NotDer("a field is missing")
    certificates = _certificates(fields[3:])
    signers = fields[-1].expect(SET).children()
    if not signers:
        raise NotSigned("nobody has signed it")
    content = fields[2].expect(SEQUENCE)
    info = signers[0].expect(SEQUENCE).children()
    signer = _verified(info, content.child(1, CONTENT), certificates)
    rest = tuple(one for one in certificates if one != signer)
    return Signed(signer, (signer, *rest), frozenset(_digests(content)), tuple(_nested(info[-1])))


def _certificates(fields: list[DerElement]) -> list[x509.Certificate]:
    found = next((field for field in fields if field.tag == CERTIFICATES), None)
    children = found.children() if found is not None else []
    if len(children) > MOST_CERTIFICATES:
        raise NotSigned(f"it has more than {MOST_CERTIFICATES} certificates")
    readable = []
    for child in children:
        with suppress(ValueError, x509.InvalidVersion):  # another one than the signer's may have an odd form
            readable.append(x509.load_der_x509_certificate(child.whole))
    return readable


def _verified(fields: list[DerElement], content: DerElement, certificates: list[x509.Certificate]) -> x509.Certificate:
    """The certificate of the signer, whose signature is right; `fields` are those of the signer."""
    if len(fields) < 5:
        raise NotDer("a field of the signer is missing")
    signer = _signer(fields[1].expect(SEQUENCE), certificates)
    _require_issued(signer, certificates)
    algorithm = DIGESTS.get(fields[2].expect(SEQUENCE).child(0, OID).oid)
    if algorithm is None:
        raise NotSigned("it is signed with an unknown digest")
    inner = content.children()
    if not inner:
        raise NotDer("the content is missing")
    digest = hashlib.new(algorithm, inner[0].content, usedforsecurity=False).digest()
    signed = inner[0].content
    following = 3
    if fields[following].tag == SIGNED_ATTRIBUTES:
        if _message_digest(fields[following]) != digest:
            raise NotSigned("its content was changed after it was signed")
        signed = bytes([SET]) + fields[following].whole[1:]
        following += 1
    if following + 1 >= len(fields):
        raise NotDer("the signature is missing")
    _require_signature(signer, fields[following + 1].expect(OCTETS).content, signed, algorithm)
    return signer


def _nested(attributes: DerElement) -> Iterator[bytes]:
    if attributes.tag != UNSIGNED_ATTRIBUTES:
        return
    for attribute in attributes.children():
        if attribute.child(0, OID).oid == NESTED:
            yield from (one.whole for one in attribute.child(1, SET).children()[:MOST_NESTED])


def _signer(identifier: DerElement, certificates: list[x509.Certificate]) -> x509.Certificate:
    """By issuer and serial number."""
    issuer = identifier.child(0, SEQUENCE).whole
    serial = int.from_bytes(identifier.child(1, INTEGER).content, "big", signed=True)
    for one in certificates:
        if one.serial_number == serial and one.issuer.public_bytes() == issuer:
            return one
    raise NotSigned("the certificate of its signer is missing")


def _require_issued(signer: x509.Certificate, certificates: list[x509.Certificate]) -> None:
    """By the authority that it names, if that one's certificate is included, as it is in each real signature."""
    for authority in certificates:
        if authority.subject == signer.issuer:
            try:
                signer.verify_directly_issued_by(authority)
            except (InvalidSignature, TypeError, ValueError, UnsupportedAlgorithm) as error:
                raise NotSigned("the certificate of its signer was changed") from error


def _message_digest(attributes: DerElement) -> bytes:
    for attribute in attributes.children():
        if attribute.child(0, OID).oid == MESSAGE_DIGEST:
            return attribute.child(1, SET).child(0, OCTETS).content
    raise NotSigned("its signature has no digest of the content")


def _require_signature(signer: x509.Certificate, signature: bytes, signed: bytes, algorithm: str) -> None:
    key = signer.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), HASHES[algorithm])
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(HASHES[algorithm]))
        else:
            raise NotSigned("the key of its signer is neither RSA nor ECDSA")
    except InvalidSignature as error:
        raise NotSigned("its signature is wrong") from error


def _digests(content: DerElement) -> Iterator[Digest]:
    """In the content: of a file, or of all files in a catalogue."""
    kind = content.child(0, OID).oid
    inner = content.child(1, CONTENT).child(0, SEQUENCE)
    if kind == INDIRECT_DATA:
        yield _digest(inner)
    elif kind == TRUST_LIST:
        yield from _listed(inner)
    else:
        raise NotSigned("what it signs is neither a file nor a catalogue")


def _digest(indirect: DerElement) -> Digest:
    info = indirect.child(1, SEQUENCE)
    algorithm = DIGESTS.get(info.child(0, SEQUENCE).child(0, OID).oid)
    if algorithm is None:
        raise NotSigned("it has an unknown digest")
    return algorithm, info.child(1, OCTETS).content


def _listed(trust_list: DerElement) -> Iterator[Digest]:
    """The entries are the only sequence of sequences that begin with an octet string."""
    for field in trust_list.children():
        if field.tag != SEQUENCE:
            continue
        for entry in field.children():
            parts = entry.children() if entry.tag == SEQUENCE else []
            if len(parts) == 2 and parts[0].tag == OCTETS and parts[1].tag == SET:
                yield from _of_entry(parts[1])


def _of_entry(attributes: DerElement) -> Iterator[Digest]:
    for attribute in attributes.children():
        if attribute.child(0, OID).oid == INDIRECT_DATA:
            for value in attribute.child(1, SET).children():
                yield _digest(value.expect(SEQUENCE))
