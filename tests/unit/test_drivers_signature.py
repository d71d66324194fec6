"""Programs and catalogues of drivers: who signed them, whether that is true, and for which releases it counts."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from hyper2kvmd.guest.windows.drivers import pe
from hyper2kvmd.guest.windows.drivers.pkcs7 import NotSigned, read_signed
from hyper2kvmd.guest.windows.drivers.releases import WindowsTarget
from hyper2kvmd.guest.windows.drivers.signature import (
    Signature,
    SignedFiles,
    Signer,
    SignerKind,
    limits,
    read_signature,
)
from tests.support import authenticode
from tests.support.authenticode import (
    ATTESTED,
    CERTIFIED,
    INDIRECT,
    TRUST_LIST,
    Authority,
    authenticode_digest,
    authority,
    indirect,
    microsoft,
    nested,
    spoiled,
    trust_list,
    vendor,
    with_signature,
)
from tests.support.virtio_win import program

INF = b"[Version]\r\n"
DRIVER = program()


def package(driver: bytes = DRIVER, catalog: bytes | None = None, inf: bytes = INF) -> SignedFiles:
    files = {"x.inf": inf, "x.sys": driver}
    if catalog is not None:
        files["x.cat"] = catalog
    return SignedFiles(files, "x.inf", "x.cat" if catalog is not None else "", "x.sys")


def catalog(signer: Authority, *data: bytes) -> bytes:
    return signer.sign_catalog(data or [hashlib.sha256(INF).digest(), authenticode_digest(DRIVER)])


# ---------------------------------------------------------------- programs


@pytest.mark.parametrize("architecture", ["amd64", "x86", "arm64"])
def test_a_program(architecture: str) -> None:
    found = pe.parse(program(architecture, (1, 2, 3, 4)))
    assert (found.architecture, found.version, found.signatures) == (architecture, (1, 2, 3, 4), ())
    assert found.digest("sha256") == authenticode_digest(program(architecture, (1, 2, 3, 4)))


def test_signing_does_not_change_the_digest_and_changes_do() -> None:
    signed = vendor().sign_driver(DRIVER)
    assert pe.parse(signed).digest("sha1") == authenticode_digest(DRIVER, "sha1")
    for at in (0x80, 0x200, len(DRIVER) - 1):
        other = DRIVER[:at] + bytes((DRIVER[at] ^ 1,)) + DRIVER[at + 1 :]
        assert pe.parse(other).digest("sha256") != authenticode_digest(DRIVER)


def test_a_program_of_an_odd_length_is_padded_before_it_is_signed() -> None:
    assert pe.parse(DRIVER + b"odd").digest("sha256") == pe.parse(vendor().sign_driver(DRIVER + b"odd")).digest(
        "sha256"
    )


def test_a_program_without_a_version() -> None:
    assert pe.parse(DRIVER.replace(b"\xbd\x04\xef\xfe", bytes(4))).version is None


CERTIFICATES = 0x40 + 24 + 112 + 32


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MZ",
        DRIVER[:0x60],
        DRIVER[:0x100],
        b"ELF" + DRIVER,
        DRIVER[:0x40] + b"NE" + DRIVER[0x42:],
        DRIVER[:0x3C] + struct.pack("<I", 1 << 31) + DRIVER[0x40:],
        DRIVER[:0x58] + b"\x07\x01" + DRIVER[0x5A:],
        DRIVER[:0x46] + struct.pack("<H", 4000) + DRIVER[0x48:],
        DRIVER[:CERTIFICATES] + struct.pack("<II", 0x200, 1 << 20) + DRIVER[CERTIFICATES + 8 :],
        DRIVER[:CERTIFICATES] + struct.pack("<II", 0x200, 8) + DRIVER[CERTIFICATES + 8 :],
    ],
)
def test_what_is_no_program(data: bytes) -> None:
    with pytest.raises(pe.NotPe):
        pe.parse(data)


def test_a_program_with_sections_without_end() -> None:
    with pytest.raises(pe.NotPe, match="4000 sections, more than 96"):
        pe.parse(DRIVER[:0x46] + struct.pack("<H", 4000) + DRIVER[0x48:])


# ---------------------------------------------------------------- signed data


@pytest.mark.parametrize("digest", authenticode.DIGESTS)
@pytest.mark.parametrize("key", ["ec", "rsa"])
def test_signed_data(digest: str, key: str) -> None:
    signer = replace(authority("Vendor", issuer="DigiCert EV", key=key), digest=digest)
    found = read_signed(signer.signed(INDIRECT, indirect(digest, b"d" * 20)))
    assert found.digests == {(digest, b"d" * 20)}
    assert found.certificates == (signer.certificate, signer.issuer)
    listed = read_signed(signer.signed(TRUST_LIST, trust_list([b"1" * 20, b"2" * 32])))
    assert listed.digests == {("sha1", b"1" * 20), ("sha256", b"2" * 32)}


GOOD = vendor().signed(INDIRECT, indirect("sha256", b"digest" * 4))


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"", "cut off"),
        (b"\x30\x80", "no valid length"),
        (GOOD[:-1], "longer than its container"),
        (authenticode.unsigned(TRUST_LIST, trust_list([b"1" * 32])), "nobody has signed it"),
        (authenticode.der(0x30, authenticode.oid("1.2.3")), "no signed data"),
        (GOOD.replace(b"digest", b"forged"), "changed after it was signed"),
        (spoiled(vendor()).signed(INDIRECT, indirect("sha256", b"d" * 32)), "its signature is wrong"),
        (vendor().signed("1.2.840.113549.1.7.1", authenticode.der(0x30)), "neither a file nor a catalogue"),
        (GOOD.ljust(5 << 20), "more than 4 MiB"),
        (GOOD.replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\x7a"), "the certificate of its signer is missing"),
    ],
)
def test_what_is_not_signed(data: bytes, fact: str) -> None:
    with pytest.raises(NotSigned, match=fact):
        read_signed(data)


def test_a_certificate_with_a_changed_name() -> None:
    with pytest.raises(NotSigned, match="the certificate of its signer was changed"):
        read_signed(GOOD.replace(b"Red Hat, Inc.", b"Microsoft Inc"))


def test_more_certificates_than_any_signature_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyper2kvmd.guest.windows.drivers.pkcs7.MOST_CERTIFICATES", 1)
    with pytest.raises(NotSigned, match="more than 1 certificates"):
        read_signed(GOOD)


def test_more_elements_than_any_catalogue_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyper2kvmd.guest.windows.drivers.der.MOST_ELEMENTS", 100)
    with pytest.raises(NotSigned, match="too many elements"):
        read_signed(vendor().signed(TRUST_LIST, trust_list([bytes(20)] * 101)))


def test_the_certificate_of_another_signer_does_not_help() -> None:
    one, other = authority("one"), authority("other")
    mixed = replace(one, certificate=other.certificate)
    with pytest.raises(NotSigned, match="signature is wrong"):
        read_signed(mixed.signed(INDIRECT, indirect("sha256", b"d" * 32)))


# ---------------------------------------------------------------- signers


@pytest.mark.parametrize(
    ("signer", "kind"),
    [
        (microsoft(CERTIFIED), "certified"),
        (microsoft(ATTESTED), "attested"),
        (vendor(), "vendor"),
        (authority("Red Hat, Inc.", issuer="DigiCert SHA2 Assured ID Code Signing CA"), "vendor"),
        (authority(), "test"),
        (authority("Red Hat, Inc.", issuer="Our own CA"), "test"),
        (authority("VeriSign"), "test"),
        (authority("Vendor", issuer="Our own CA", uses=(CERTIFIED,)), "test"),
    ],
)
def test_kinds_of_signers(signer: Authority, kind: SignerKind) -> None:
    found = read_signature(package(signer.sign_driver(DRIVER), catalog(signer)))
    assert found.faults == ()
    assert found.catalog == found.embedded
    assert found.best is not None
    assert found.best.kind == kind


def test_a_catalogue_alone_is_enough_and_so_is_the_driver() -> None:
    for signed in (package(catalog=catalog(vendor())), package(vendor().sign_driver(DRIVER))):
        found = read_signature(signed)
        assert found.best == Signer("Red Hat, Inc.", "Symantec Class 3 SHA256 Code Signing CA", "vendor")
        assert (found.catalog is None) != (found.embedded is None)
    assert read_signature(package()) == Signature()


def test_the_best_of_several_signatures_counts() -> None:
    own = vendor().signed(INDIRECT, indirect("sha256", authenticode_digest(DRIVER)))
    other = microsoft(CERTIFIED).signed(INDIRECT, indirect("sha256", authenticode_digest(DRIVER)))
    within = vendor().signed(INDIRECT, indirect("sha256", authenticode_digest(DRIVER)), nested(other))
    for driver in (with_signature(DRIVER, own, other), with_signature(DRIVER, within)):
        found = read_signature(package(driver))
        assert found.best is not None
        assert found.best.kind == "certified"


OTHER = DRIVER[:0x210] + b"changed" + DRIVER[0x217:]
FAULTS: dict[str, tuple[Callable[[], SignedFiles], str]] = {
    "a changed driver": (
        lambda: package(
            with_signature(OTHER, vendor().signed(INDIRECT, indirect("sha256", authenticode_digest(DRIVER))))
        ),
        "the signature of x.sys is not valid: the file was changed after it was signed",
    ),
    "a driver that is not listed": (
        lambda: package(OTHER, catalog(vendor())),
        "its catalogue x.cat does not list x.sys",
    ),
    "a changed INF": (lambda: package(catalog=catalog(vendor()), inf=b"[Other]"), "x.cat does not list x.inf"),
    "an empty catalogue": (lambda: package(catalog=b""), "its catalogue x.cat is not signed"),
    "a missing catalogue": (
        lambda: SignedFiles({"x.inf": INF, "x.sys": DRIVER}, "x.inf", "x.cat", "x.sys"),
        "its catalogue x.cat is missing",
    ),
    "a forged catalogue": (lambda: package(catalog=catalog(spoiled(vendor()))), "its signature is wrong"),
}


@pytest.mark.parametrize("more", [b"M", bytes(8)])
def test_a_driver_with_data_after_its_signature_is_not_signed(more: bytes) -> None:
    """Not even if its digest covers the data: nothing that Windows or the vendor uses is there."""
    signed = vendor().sign_driver(DRIVER)
    for digest in (authenticode_digest(DRIVER), pe.parse(signed + more).digest("sha256")):
        found = read_signature(package(signed + more, catalog(vendor(), hashlib.sha256(INF).digest(), digest)))
        assert found.best is None
        assert any("after its signature" in fault for fault in found.faults)
    assert pe.parse(signed + more).digest("sha256") != pe.parse(signed).digest("sha256")


@pytest.mark.parametrize(("made", "fact"), FAULTS.values(), ids=FAULTS)
def test_a_signature_that_does_not_fit(made: Callable[[], SignedFiles], fact: str) -> None:
    found = read_signature(made())
    assert found.best is None
    assert any(fact in fault for fault in found.faults)


@pytest.mark.parametrize(
    ("kind", "build", "server", "fact", "cured"),
    [
        ("certified", 9600, True, None, False),
        ("certified", 26100, True, None, False),
        ("attested", 9600, False, "only Windows 10 and later accept", False),
        ("attested", 19045, False, None, False),
        ("attested", 17763, True, "Windows Server may refuse", True),
        ("vendor", 10240, False, None, False),
        ("vendor", 14393, True, "without Secure Boot", True),
        ("test", 9600, True, "testsigning", False),
    ],
)
def test_where_a_driver_loads(kind: SignerKind, build: int, server: bool, fact: str | None, *, cured: bool) -> None:
    """`cured`: without Secure Boot."""
    signature = Signature(embedded=Signer("Somebody", "Somebody else", kind))
    found = limits(signature, WindowsTarget(build, server, "amd64"))
    assert (found is None) == (fact is None)
    assert found is None or (fact or "") in found.reason
    assert found is None or found.is_for_secure_boot == cured
    in_32_bits = limits(signature, WindowsTarget(build, server, "x86"))
    assert kind != "test" or (in_32_bits is not None and in_32_bits.is_for_secure_boot)
    assert limits(Signature(), WindowsTarget(build, server, "amd64")) is None
