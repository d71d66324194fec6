"""Who signed a driver package, what the signature covers, and on which releases of Windows the driver loads.

Sources: Microsoft, "Driver Signing Policy", "Validate the Microsoft Signature".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hyper2kvmd.guest.windows.drivers import pe
from hyper2kvmd.guest.windows.drivers.faults import shown
from hyper2kvmd.guest.windows.drivers.pkcs7 import Digest, NotSigned, Signed, read_signed
from hyper2kvmd.guest.windows.drivers.releases import ATTESTED_FROM, CROSS_SIGNED_UNTIL, WindowsTarget
from hyper2kvmd.units import counted

SignerKind = Literal["certified", "attested", "vendor", "test"]
"""`certified` and `attested` are signatures of Microsoft, after tests or after a declaration of the vendor; `vendor` is
one of an authority that Windows trusts."""
RANK: dict[SignerKind, int] = {"certified": 3, "attested": 2, "vendor": 1, "test": 0}
MICROSOFT = "Microsoft Corporation"
CERTIFIED_USE, ATTESTED_USE = "1.3.6.1.4.1.311.10.3.5", "1.3.6.1.4.1.311.10.3.5.1"
AUTHORITIES = ("certum", "digicert", "entrust", "globalsign", "go daddy", "microsoft", "symantec", "thawte", "verisign")
"""Authorities with a cross-certificate of Microsoft for kernel drivers, as their names begin in lower case."""


@dataclass(frozen=True)
class Signer:
    name: str
    issuer: str
    kind: SignerKind


@dataclass(frozen=True)
class Signature:
    """`catalog` signed a catalogue that lists the INF and all files, `embedded` the driver itself."""

    catalog: Signer | None = None
    embedded: Signer | None = None
    faults: tuple[str, ...] = ()
    """Signatures that do not fit, as clauses."""

    @property
    def best(self) -> Signer | None:
        return max(filter(None, (self.embedded, self.catalog)), key=lambda one: RANK[one.kind], default=None)


@dataclass(frozen=True)
class SignedFiles:
    """The files of a driver package by their names beside the INF."""

    files: Mapping[str, bytes]
    inf: str
    catalog: str
    """Empty if the INF names none."""
    binary: str


def read_signature(package: SignedFiles) -> Signature:
    """Reads the catalogue and the signature in the driver; raises nothing."""
    faults: list[str] = []
    catalog = _catalog_signer(package, faults)
    return Signature(catalog, _embedded_signer(package, faults), tuple(faults))


@dataclass(frozen=True)
class SignatureLimit:
    """Why a release of Windows may not load a signed driver."""

    reason: str
    """What the signature is, and what follows from it, as one clause without a subject."""
    is_for_secure_boot: bool
    """Whether Windows loads the driver if Secure Boot is off."""


def limits(signature: Signature, target: WindowsTarget) -> SignatureLimit | None:
    """None if nothing is known against the driver."""
    signer = signature.best
    if signer is None:
        return None
    match signer.kind:
        case "test":
            reason = (
                f"test-signed by {signer.name}, so that Windows loads it only without Secure Boot and after `bcdedit "
                "/set testsigning on`"
            )
            return SignatureLimit(reason, is_for_secure_boot=not target.enforces_signatures)
        case "vendor" if target.build >= CROSS_SIGNED_UNTIL:
            reason = f"signed by {signer.name} and not by Microsoft, so that this release loads it only without "
            return SignatureLimit(f"{reason}Secure Boot", is_for_secure_boot=True)
        case "attested" if target.build < ATTESTED_FROM:
            reason = "signed by Microsoft by attestation, which only Windows 10 and later accept"
            return SignatureLimit(reason, is_for_secure_boot=False)
        case "attested" if target.server:
            reason = "signed by Microsoft by attestation, which Windows Server may refuse with Secure Boot"
            return SignatureLimit(reason, is_for_secure_boot=True)
    return None


def _catalog_signer(package: SignedFiles, faults: list[str]) -> Signer | None:
    if not package.catalog or package.catalog not in package.files:
        if package.catalog:
            faults.append(f"its catalogue {shown(package.catalog)} is missing")
        return None
    try:
        signed = read_signed(package.files[package.catalog])
    except NotSigned as error:
        faults.append(f"its catalogue {shown(package.catalog)} is not signed: {error}")
        return None
    names = (name for name in package.files if name != package.catalog)
    unlisted = [name for name in names if not _is_listed(package.files[name], signed.digests)]
    if unlisted:
        faults.append(f"its catalogue {shown(package.catalog)} does not list {', '.join(map(shown, unlisted))}")
        return None
    return _signer(signed)


def _is_listed(data: bytes, digests: frozenset[Digest]) -> bool:
    return any((algorithm, _digest(data, algorithm)) in digests for algorithm in {name for name, _ in digests})


def _digest(data: bytes, algorithm: str) -> bytes:
    """Of a program without its signatures, of another file, or of a program with data after them, as a whole."""
    try:
        program = pe.parse(data)
        if not program.bytes_after_signatures:
            return program.digest(algorithm)
    except pe.NotPe:
        pass
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()


def _embedded_signer(package: SignedFiles, faults: list[str]) -> Signer | None:
    data = package.files[package.binary]
    try:
        found = [_signer(signed) for signed in _embedded(pe.parse(data))]
    except (NotSigned, pe.NotPe) as error:
        faults.append(f"the signature of {shown(package.binary)} is not valid: {error}")
        return None
    return max(found, key=lambda one: RANK[one.kind], default=None)


def _embedded(program: pe.DriverProgram) -> Iterator[Signed]:
    if program.signatures and program.bytes_after_signatures:
        raise NotSigned(f"the file has {counted(program.bytes_after_signatures, 'byte')} after its signature")
    for data in program.signatures:
        signed = read_signed(data)
        for one in (signed, *map(read_signed, signed.others)):
            if any(program.digest(algorithm) != digest for algorithm, digest in one.digests):
                raise NotSigned("the file was changed after it was signed")
            yield one


def _signer(signed: Signed) -> Signer:
    certificate = signed.signer
    return Signer(_name(certificate.subject), _name(certificate.issuer), _kind(signed))


def _kind(signed: Signed) -> SignerKind:
    uses = _uses(signed.signer)
    if MICROSOFT in _texts(signed.signer.subject, NameOID.ORGANIZATION_NAME):
        if ATTESTED_USE in uses:
            return "attested"
        if CERTIFIED_USE in uses:
            return "certified"
    issuer = [text.lower() for text in _texts(signed.signer.issuer)]
    is_trusted = any(text.startswith(AUTHORITIES) for text in issuer)
    return "vendor" if is_trusted and signed.signer.issuer != signed.signer.subject else "test"


def _uses(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return set()
    return {use.dotted_string for use in found if use != ExtendedKeyUsageOID.CODE_SIGNING}


def _texts(name: x509.Name, oid: x509.ObjectIdentifier | None = None) -> list[str]:
    return [str(part.value) for part in name if oid is None or part.oid == oid]


def _name(name: x509.Name) -> str:
    """The common name, else the whole name; for a message."""
    common = _texts(name, NameOID.COMMON_NAME)
    return shown(common[0] if common else ", ".join(_texts(name)) or "an unnamed signer")
