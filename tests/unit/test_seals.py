"""Signed packages: who signed the manifest, and whether anyone trusted vouches for it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.x509.oid import NameOID

from hyper2kvmd.errors import Failure
from hyper2kvmd.machines.seals import HASHES
from hyper2kvmd.model.disks import DigestAlgorithm
from hyper2kvmd.model.machine import Machine
from tests.support.ova import FORMS, Disk, envelope, manifest, of_two_files, read_ova

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | dsa.DSAPrivateKey
DATA = b"\1" * 4096
FILES = {"web01.ovf": envelope(Disk(4096, "disk.raw")), "disk.raw": DATA}
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@dataclass(frozen=True)
class Party:
    key: Key
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def party(name: str, issuer: Party | None = None, *, key: Key | None = None, ca: bool = True, days: int = 10) -> Party:
    key = key or rsa_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 20 * DAY)
        .not_valid_after(NOW + days * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(issuer.key if issuer else key, hashes.SHA256())
    )
    return Party(key, certificate)


def signed(data: bytes, *chain: Party, algorithm: DigestAlgorithm = "sha256", name: str = "web01.mf") -> bytes:
    key, chosen = chain[0].key, HASHES[algorithm]
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(data, padding.PKCS1v15(), chosen)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(data, ec.ECDSA(chosen))
    else:
        signature = key.sign(data, chosen)
    line = f"{algorithm.upper()}({name})= {signature.hex()}\n".encode()
    return line + b"".join(one.pem for one in chain)


def read(folder: Path, files: Mapping[str, bytes], *trusted: Party, form: str = "tar") -> Machine:
    FORMS[form](folder / "web01.ova", files)
    (folder / "ca.pem").write_bytes(b"".join(one.pem for one in trusted))
    wanted = {"ova_ca": folder / "ca.pem"} if trusted else {}
    return read_ova(folder / "web01.ova", folder / "work", **wanted)


def refusal(folder: Path, files: Mapping[str, bytes], *trusted: Party, form: str = "tar") -> Failure:
    with pytest.raises(Failure) as caught:
        read(folder, files, *trusted, form=form)
    assert caught.value.message.isprintable()
    return caught.value


@pytest.fixture(scope="module")
def ca() -> Party:
    return party("a CA")


@pytest.fixture(scope="module")
def signer(ca: Party) -> Party:
    return party("a signer", ca, ca=False)


MANIFEST = manifest(FILES)
PACKAGE = {**FILES, "web01.mf": MANIFEST}


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_signature_that_a_trusted_authority_vouches_for(
    tmp_path: Path, ca: Party, signer: Party, algorithm: DigestAlgorithm
) -> None:
    package = {**PACKAGE, "web01.cert": signed(MANIFEST, signer, algorithm=algorithm)}
    assert not read(tmp_path, package, party("another CA"), ca).concerns


def test_authorities_between_and_other_keys(tmp_path: Path, ca: Party) -> None:
    between = party("between", ca, key=ec.generate_private_key(ec.SECP256R1()))
    signer = party("a signer", between, key=ec.generate_private_key(ec.SECP384R1()), ca=False)
    assert not read(tmp_path, {**PACKAGE, "web01.cert": signed(MANIFEST, signer, between)}, ca).concerns


def test_the_signers_own_certificate_may_be_trusted(tmp_path: Path) -> None:
    alone = party("self-signed", ca=False)
    assert not read(tmp_path, {**PACKAGE, "web01.cert": signed(MANIFEST, alone)}, alone).concerns


def test_without_a_ca_a_signature_is_only_noted(tmp_path: Path, signer: Party) -> None:
    (concern,) = read(tmp_path, {**PACKAGE, "web01.cert": signed(MANIFEST, signer)}).concerns
    assert (concern.code, concern.level) == ("signature-not-verified", "information")


def test_sha1_is_accepted_with_a_warning(tmp_path: Path, ca: Party, signer: Party) -> None:
    (concern,) = read(tmp_path, {**PACKAGE, "web01.cert": signed(MANIFEST, signer, algorithm="sha1")}, ca).concerns
    assert concern.code == "signature-weak"


@pytest.mark.parametrize(("key", "weakness"), [("rsa", "RSA key of 1024 bits"), ("ecdsa", "ECDSA key of 192 bits")])
def test_short_keys_are_accepted_with_a_warning(tmp_path: Path, key: str, weakness: str) -> None:
    keys: dict[str, Key] = {
        "rsa": rsa.generate_private_key(65537, 1024),  # noqa: S505 - what the concern is about
        "ecdsa": ec.generate_private_key(ec.SECP192R1()),
    }
    alone = party("self-signed", key=keys[key], ca=False)
    (concern,) = read(tmp_path, {**PACKAGE, "web01.cert": signed(MANIFEST, alone)}, alone).concerns
    assert concern.code == "signature-weak"
    assert weakness in concern.message


def test_a_key_that_cannot_be_used(tmp_path: Path) -> None:
    """Of a curve that the library lacks, or no point of its curve."""
    alone = party("self-signed", key=ec.generate_private_key(ec.SECP256R1()), ca=False)
    curve, other = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030163")
    point = alone.key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    der = alone.certificate.public_bytes(serialization.Encoding.DER)
    for damaged in (der.replace(curve, other), der.replace(point, point[:1] + bytes(len(point) - 1))):
        assert damaged != der
        odd = Party(alone.key, x509.load_der_x509_certificate(damaged))
        assert refusal(tmp_path, {**PACKAGE, "web01.cert": signed(MANIFEST, odd)}, odd).code == "signature-invalid"


def test_what_is_not_signed_is_refused(tmp_path: Path, ca: Party, signer: Party) -> None:
    seal = signed(MANIFEST, signer)
    other = {**PACKAGE, "web01.mf": MANIFEST + b"\n"}
    short = manifest({"web01.ovf": FILES["web01.ovf"]})
    for files in (
        FILES,
        PACKAGE,
        {**FILES, "web01.cert": seal},
        {**other, "web01.cert": seal},
        {**PACKAGE, "web01.cert": seal.replace(b"(web01.mf)", b"(other.mf)")},
        {**PACKAGE, "web01.cert": b"SHA256(web01.mf)= zz\n" + signer.pem},
        {**FILES, "web01.mf": short, "web01.cert": signed(short, signer)},
    ):
        assert refusal(tmp_path, files, ca).code == "signature-invalid"


def test_the_content_of_a_disk_that_is_not_listed(tmp_path: Path, ca: Party, signer: Party) -> None:
    """Its own descriptor is a small text, and says nothing about it."""
    files = of_two_files(b"\1" * 4096)
    listed = manifest({name: data for name, data in files.items() if name != "web01-flat.vmdk"})
    package = {**files, "web01.mf": listed, "web01.cert": signed(listed, signer, ca)}
    failure = refusal(tmp_path, package, ca, form="directory")
    assert failure.code == "signature-invalid"
    assert "does not list web01-flat.vmdk" in failure.message


def test_who_is_not_trusted_is_refused(tmp_path: Path, ca: Party, signer: Party) -> None:
    stranger, expired = party("a stranger", ca=False), party("expired", ca, ca=False, days=-1)
    no_authority = party("by a signer", signer, ca=False)
    odd = party("odd", ca, key=dsa.generate_private_key(2048), ca=False)
    for chain in ((stranger,), (expired,), (no_authority, signer), (odd,)):
        assert refusal(tmp_path, {**PACKAGE, "web01.cert": signed(MANIFEST, *chain)}, ca).code == "signature-invalid"


def test_a_certificate_of_another_signer_beside_the_signature(tmp_path: Path, ca: Party, signer: Party) -> None:
    forged = signed(MANIFEST, party("a stranger", ca=False)).partition(b"-----BEGIN")[0] + signer.pem
    assert refusal(tmp_path, {**PACKAGE, "web01.cert": forged}, ca).code == "signature-invalid"


def test_a_signed_manifest_of_other_bytes(tmp_path: Path, ca: Party, signer: Party) -> None:
    package = {**PACKAGE, "web01.ovf": FILES["web01.ovf"] + b"\n", "web01.cert": signed(MANIFEST, signer)}
    assert refusal(tmp_path, package, ca).code == "source-digest-differs"


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_without_certificates(tmp_path: Path, signer: Party, content: bytes) -> None:
    FORMS["tar"](tmp_path / "web01.ova", {**PACKAGE, "web01.cert": signed(MANIFEST, signer)})
    (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(Failure) as caught:
        read_ova(tmp_path / "web01.ova", tmp_path / "work", ova_ca=tmp_path / "ca.pem")
    assert caught.value.code == "certificate-unusable"
