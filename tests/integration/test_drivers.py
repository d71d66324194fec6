"""Driver sources by tools of other authors: genisoimage and isoinfo for images, osslsigncode for signatures."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hyper2kvmd.guest.windows.drivers import pe
from hyper2kvmd.guest.windows.drivers.choice import choose_packages
from hyper2kvmd.guest.windows.drivers.pkcs7 import read_signed
from hyper2kvmd.guest.windows.drivers.releases import WindowsTarget
from hyper2kvmd.guest.windows.drivers.signature import SignedFiles, read_signature
from hyper2kvmd.guest.windows.drivers.source import DriverSource
from tests.support.authenticode import ATTESTED, DIGESTS, Authority, authenticode_digest, microsoft, vendor
from tests.support.disks import sh
from tests.support.iso_image import iso
from tests.support.virtio_win import FILES, image, program, tree

TARGET = WindowsTarget(17763, True, "amd64")


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def virtio_win(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a folder that is deeper than ISO 9660 allows, so that genisoimage moves it."""
    root = tree(tmp_path_factory.mktemp("drivers") / "virtio-win", vendor())
    deep = root / "1/2/3/4/5/6/7/8/9"
    deep.mkdir(parents=True)
    (deep / "a name with blanks, umlauts äöü and 60 letters in all.inf").write_bytes(b"deep")
    return root


@pytest.mark.parametrize(
    "options",
    [
        ("-rock", "-joliet", "-iso-level", "4"),
        ("-rock",),
        ("-rational-rock", "-joliet", "-joliet-long", "-input-charset", "utf-8"),
        ("-joliet", "-joliet-long", "-input-charset", "utf-8", "-D"),
    ],
    ids=" ".join,
)
def test_an_image_by_genisoimage_has_the_files_of_the_folder(
    virtio_win: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    path = image(virtio_win, tmp_path / "virtio-win.iso", *options)
    with DriverSource.open(path) as source:
        assert {name: source.read(name) for name in source.names} == contents(virtio_win)
        assert [package.name for package in choose_packages(source, TARGET)] == [
            "viostor",
            "vioscsi",
            "netkvm",
            "balloon",
            "vioserial",
        ]


def test_short_names_by_genisoimage(virtio_win: Path, tmp_path: Path) -> None:
    path = image(virtio_win, tmp_path / "virtio-win.iso", "-iso-level", "3", "-D")
    with DriverSource.open(path) as source:
        assert source.find("viostor/w10/amd64/viostor.sys") == "VIOSTOR/W10/AMD64/VIOSTOR.SYS"
        assert len(choose_packages(source, TARGET)) == len(FILES)


@pytest.mark.parametrize("names", ["-R", "-J"])
def test_isoinfo_reads_the_images_of_the_tests(virtio_win: Path, tmp_path: Path, names: str) -> None:
    files = {name: data for name, data in contents(virtio_win).items() if not name.startswith("1/")}
    path = tmp_path / "virtio-win.iso"
    path.write_bytes(iso(files))
    listed = sh("isoinfo", names, "-f", "-i", path).split("\n")
    assert {f"/{name}" for name in files} <= set(listed)
    text = sh("isoinfo", names, "-i", path, "-x", "/viostor/w10/amd64/viostor.inf")
    assert text.replace("\r\n", "\n") == files["viostor/w10/amd64/viostor.inf"].decode().replace("\r\n", "\n")


def judged(folder: Path, data: bytes, signer: Authority, *more: str | Path) -> str:
    """What osslsigncode says of a signed file if it trusts the issuer of the signer."""
    trusted = signer.with_tool(folder).certificate
    if signer.issuer is not None:
        trusted.write_bytes(trusted.read_bytes() + _pem(signer))
    path = folder / "judged.sys"
    path.write_bytes(data)
    argv = ["osslsigncode", "verify", "-in", path, "-CAfile", trusted, *more]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def _pem(signer: Authority) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    assert signer.issuer is not None
    return signer.issuer.public_bytes(Encoding.PEM)


@pytest.mark.parametrize("architecture", ["amd64", "x86"])
@pytest.mark.parametrize("digest", DIGESTS)
def test_osslsigncode_signs_and_computes_the_same_digest(tmp_path: Path, architecture: str, digest: str) -> None:
    signer = microsoft(ATTESTED, key="rsa").with_tool(tmp_path, digest)
    driver = signer.sign_driver(program(architecture))
    found = pe.parse(driver)
    (signed,) = map(read_signed, found.signatures)
    assert signed.digests == {(digest, found.digest(digest))}
    told = subprocess.run(
        ["osslsigncode", "verify", "-in", tmp_path / "signed.sys"], capture_output=True, text=True, check=False
    ).stdout
    (calculated,) = re.findall(r"Calculated message digest *: ([0-9A-F]+)", told)
    assert calculated == found.digest(digest).hex().upper()
    files = {"x.inf": b"[Version]", "x.sys": driver}
    best = read_signature(SignedFiles(files, "x.inf", "", "x.sys")).best
    assert best is not None
    assert best.kind == "attested"


def test_osslsigncode_accepts_the_signatures_of_the_tests(tmp_path: Path) -> None:
    signer = vendor()
    driver = signer.sign_driver(program())
    assert "Signature verification: ok" in judged(tmp_path, driver, signer)
    at = len(program()) - 1
    changed = driver[:at] + bytes((driver[at] ^ 1,)) + driver[at + 1 :]
    assert "Signature verification: ok" not in judged(tmp_path, changed, signer)
    best = [
        read_signature(SignedFiles({"x.inf": b"", "x.sys": data}, "x.inf", "", "x.sys")).best
        for data in (driver, changed)
    ]
    assert [one is not None for one in best] == [True, False]


def test_osslsigncode_finds_a_driver_in_its_catalogue(tmp_path: Path) -> None:
    signer = vendor()
    for data, is_listed in ((program(), True), (program(version=(1, 1, 1, 1)), False)):
        catalog = tmp_path / "x.cat"
        catalog.write_bytes(signer.sign_catalog([authenticode_digest(program())]))
        told = judged(tmp_path, data, signer, "-catalog", catalog)
        assert ("Signature verification: ok" in told) == is_listed, told
        files = {"x.sys": data, "x.cat": catalog.read_bytes()}
        found = read_signature(SignedFiles(files, "x.inf", "x.cat", "x.sys"))
        assert (found.catalog is not None) == is_listed
