"""What protects an OVF package from damage: its manifest, and the signature of the manifest (DSP0243, 5.1 and 5.2)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import verification

from hyper2kvmd.disk.files import open_file
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.machines.manifest import MAX_BYTES, Manifest, parse_line, parse_manifest
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import DigestAlgorithm

Key: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
LARGEST_CERTIFICATE = 256 << 10
"""Bytes of a file with certificates."""
MOST_CERTIFICATES = 16
LEAST_RSA_BITS, LEAST_ECDSA_BITS = 2048, 224
"""Shorter keys can be broken: NIST SP 800-131A, section 3."""
SHOWN_LINES, SHOWN_CHARACTERS = 3, 60
HASHES: Mapping[DigestAlgorithm, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - the signer's choice, which is reported
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


class SealedFiles(Protocol):
    """The files beside a descriptor."""

    @property
    def stem(self) -> str: ...

    @property
    def mandate(self) -> Mandate: ...

    @property
    def place(self) -> Path: ...

    def with_suffix(self, suffix: str) -> str | None: ...

    def read(self, name: str, limit: int) -> bytes: ...


def read_manifest(files: SealedFiles, ca: Path | None) -> tuple[Manifest, tuple[Concern, ...]]:
    """The manifest, empty if there is none, and what is missing or unclear. `ca` has the certificates to trust.

    Raises MigrationFailed (`signature-invalid`, `certificate-unusable`), and as `open_stored` does.
    """
    name, certificate = files.with_suffix(".mf"), files.with_suffix(".cert")
    if ca is not None and (name is None or certificate is None):
        missing = "manifest (.mf)" if name is None else "certificate (.cert)"
        raise invalid(files.place, f"it has no {missing}, so its signature cannot be verified")
    if name is None:
        return Manifest({}), tuple(_missing(files))
    data = files.read(name, MAX_BYTES + 1)
    manifest = replace(parse_manifest(data), name=name)
    concerns = [*_unclear(manifest)]
    if ca is not None and certificate is not None:
        if len(data) > MAX_BYTES:
            raise invalid(files.place, f"{name} has more than {MAX_BYTES} bytes")
        signed = files.read(certificate, LARGEST_CERTIFICATE)
        concerns += require_signed(data, name, signed, files.place / certificate, _trusted(ca, files.mandate))
    elif certificate is not None:
        concerns.append(
            Concern(
                code="signature-not-verified",
                message=f"{certificate} has a signature of {name}, which was not verified",
                hint="Set ova_ca to a file with the certificates of the authorities that you trust",
                level="information",
            )
        )
    return manifest, tuple(concerns)


def require_signed(
    manifest: bytes, name: str, signed: bytes, certificate: Path, trusted: list[x509.Certificate]
) -> Iterator[Concern]:
    """Raise MigrationFailed (`signature-invalid`) unless someone trusted signed the manifest `name`."""
    algorithm, signature = _signature(signed, name, certificate)
    chain = _certificates(signed, certificate)
    key = _public_key(chain[0], certificate)
    _require_signature(key, manifest, algorithm, signature, certificate)
    _require_trust(chain, trusted, certificate)
    for weakness in _weaknesses(key, algorithm):
        yield Concern(
            code="signature-weak",
            message=f"the signature in {certificate.name} is made with {weakness}, which can be forged",
            hint="Export the machine with a newer tool, and sign it with a longer key",
        )


def invalid(path: Path, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "signature-invalid",
        f"{path}: {fact}",
        hint="Copy or export the machine again, or remove ova_ca to migrate it without a verified signature",
    )


def _missing(files: SealedFiles) -> Iterator[Concern]:
    yield Concern(
        code="manifest-missing",
        message=f"{files.place} has no manifest (.mf): damage of its files would not be noticed",
        hint="Compare the checksums of its files with those of the originals, or export it with a manifest",
    )


def _unclear(manifest: Manifest) -> Iterator[Concern]:
    if manifest.unknown:
        lines = [repr(line[:SHOWN_CHARACTERS]) for line in manifest.unknown[:SHOWN_LINES]]
        more = f" and {len(manifest.unknown) - SHOWN_LINES} more" if len(manifest.unknown) > SHOWN_LINES else ""
        yield Concern(
            code="manifest-unclear",
            message=f"{manifest.name} has lines that are no checksum: {', '.join(lines)}{more}",
            hint="Export or copy the manifest again, if it was not edited on purpose",
        )


def _signature(signed: bytes, name: str, certificate: Path) -> tuple[DigestAlgorithm, bytes]:
    """From the line before the certificates: `SHA256(web01.mf)= ` and hexadecimal digits."""
    text = signed.decode("ascii", errors="replace").partition("-----BEGIN")[0]
    for line in text.splitlines():
        found = parse_line(line)
        if found is not None and found[1] == name:
            try:
                return found[0], bytes.fromhex(found[2])
            except ValueError:
                break
    raise invalid(certificate, f"it has no signature of {name}")


def _certificates(data: bytes, path: Path) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise MigrationFailed(
            "certificate-unusable",
            f"{path} has no usable certificate in PEM form: {error}",
            hint="Write the certificates between BEGIN CERTIFICATE and END CERTIFICATE lines",
        ) from error
    return found[:MOST_CERTIFICATES]


def _trusted(ca: Path, mandate: Mandate) -> list[x509.Certificate]:
    file = open_file(ca, mandate)
    try:
        return _certificates(file.read(0, LARGEST_CERTIFICATE), ca)
    finally:
        os.close(file.fd)


def _public_key(signer: x509.Certificate, path: Path) -> Key:
    try:
        key = signer.public_key()
    except (UnsupportedAlgorithm, ValueError) as error:
        raise invalid(path, f"the key of its certificate cannot be used ({error})") from error
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise invalid(path, "the key of its certificate is neither RSA nor ECDSA")
    return key


def _require_signature(key: Key, manifest: bytes, algorithm: DigestAlgorithm, signature: bytes, path: Path) -> None:
    chosen = HASHES[algorithm]
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, manifest, padding.PKCS1v15(), chosen)
        else:
            key.verify(signature, manifest, ec.ECDSA(chosen))
    except InvalidSignature as error:
        raise invalid(path, "the manifest was changed after it was signed, or another certificate signed it") from error
    except (UnsupportedAlgorithm, ValueError) as error:
        raise invalid(path, f"its signature cannot be verified ({error})") from error


def _weaknesses(key: Key, algorithm: DigestAlgorithm) -> Iterator[str]:
    if algorithm == "sha1":
        yield "SHA-1"
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
        yield f"an RSA key of {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < LEAST_ECDSA_BITS:
        yield f"an ECDSA key of {key.key_size} bits"


def _require_trust(chain: list[x509.Certificate], trusted: list[x509.Certificate], path: Path) -> None:
    """The signer's certificate is one of the trusted ones, or one of these vouches for it today."""
    if chain[0] in trusted:
        return
    authority = verification.ExtensionPolicy.permit_all().require_present(
        x509.BasicConstraints, verification.Criticality.AGNOSTIC, _require_authority
    )
    anyone = verification.ExtensionPolicy.permit_all()
    builder = verification.PolicyBuilder().store(verification.Store(trusted))
    verifier = builder.extension_policies(ca_policy=authority, ee_policy=anyone).build_client_verifier()
    try:
        verifier.verify(chain[0], chain[1:])
    except verification.VerificationError as error:
        raise invalid(path, f"no certificate in ova_ca vouches for its certificate ({error})") from error


def _require_authority(
    _policy: verification.Policy, _certificate: x509.Certificate, constraints: x509.BasicConstraints
) -> None:
    if not constraints.ca:
        raise ValueError("a certificate in the chain belongs to no authority")
