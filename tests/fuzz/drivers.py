"""Damages driver sources: INF files, ISO images, programs and catalogues. Each must be read or refused, soon.

No damage makes a signature say more than the undamaged one did. `python -m tests.fuzz.drivers --count 100000`; what it
finds it prints with the seed that makes it again: `--seed N --count 1`.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.windows.drivers.choice import choose_packages, signature_concerns
from hyper2kvmd.guest.windows.drivers.inf import parse_inf
from hyper2kvmd.guest.windows.drivers.releases import WindowsTarget
from hyper2kvmd.guest.windows.drivers.signature import SignedFiles, read_signature
from hyper2kvmd.guest.windows.drivers.source import DriverSource
from hyper2kvmd.guest.windows.drivers.store import StorePlace, records_of
from tests.fuzz import harness
from tests.support.authenticode import INDIRECT, authenticode_digest, indirect, nested, vendor, with_signature
from tests.support.iso_image import SECTOR, iso
from tests.support.virtio_win import FILES, Package, Stamp, inf, program

TARGETS = (
    WindowsTarget(17763, True, "amd64"),
    WindowsTarget(9600, False, "amd64"),
    WindowsTarget(19045, False, "x86"),
)
WORDS = (
    b"%%", b"%VENDOR%", b'"', b'""', b",", b"=", b"\\\n", b"[", b"]", b";", b"\0", b"\xff\xfe", b"NTamd64.10.0...1",
    b"HKR", b"0x10", b"0x00010001", b"..\\", b"/", b"AddReg=", b"CopyFiles=@x", b"4294967296", b"-1", b"\r",
    b"\xc3", b"%12%",
)  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    infs: tuple[bytes, ...]
    images: tuple[bytes, ...]
    sources: tuple[bytes, ...]
    """Images with all drivers."""
    signed: tuple[dict[str, bytes], ...]


def corpus() -> Corpus:
    texts = [inf(driver, stamp) for driver in FILES for stamp in (Stamp(), Stamp("amd64.10.0...16299", dirid=13))]
    signer = vendor()
    files: dict[str, bytes] = {}
    for driver in FILES:
        made = Package(driver, "2k19", utf_16=driver == "NetKVM").files(signer)
        files |= {f"{driver}/2k19/amd64/{name}": data for name, data in made.items()}
    few = {name: data for name, data in files.items() if name.startswith("viostor")}
    names = ((True, True), (True, False), (False, True), (False, False))
    return Corpus(
        infs=(*(text.encode() for text in texts), texts[0].encode("utf-16"), texts[2].encode("utf-16-le")),
        images=tuple(iso(few, rock_ridge=rock_ridge, joliet=joliet) for rock_ridge, joliet in names),
        sources=(iso(files, joliet=False), iso(files, rock_ridge=False)),
        signed=(Package("viostor", "2k19").files(signer), twice_signed()),
    )


def twice_signed() -> dict[str, bytes]:
    """With a second signature within the first, and an old digest."""
    driver = program()
    own = indirect("sha1", authenticode_digest(driver, "sha1"))
    other = vendor().signed(INDIRECT, indirect("sha256", authenticode_digest(driver)))
    signed = with_signature(driver, vendor().signed(INDIRECT, own, nested(other)))
    return {**Package("viostor", "2k19").files(vendor()), "viostor.sys": signed}


def damage(data: bytes, pick: random.Random, words: tuple[bytes, ...] = ()) -> bytes:
    changed = bytearray(data)
    for _ in range(pick.choice((1, 1, 2, 4, 8))):
        at = pick.randrange(len(changed) + 1)
        match pick.randrange(6 if words else 5):
            case 0:
                changed[at : at + 1] = bytes([pick.randrange(256)])
            case 1:
                changed[at : at + 4] = pick.choice(harness.NUMBERS).to_bytes(4, pick.choice(("little", "big")))
            case 2:
                del changed[at : at + pick.choice((1, 8, 64))]
            case 3:
                changed[at:at] = changed[at : at + pick.choice((1, 16, 128))] * pick.choice((1, 2, 50))
            case 4:
                del changed[at:]
            case 5:
                changed[at:at] = pick.choice(words)
    return bytes(changed)


def spoil(image: bytes, pick: random.Random) -> bytes:
    """The bytes that an image has at all places of its directories, and seldom its other ones."""
    used = [at for at in range(16 * SECTOR, min(len(image), 40 * SECTOR)) if image[at]]
    changed = bytearray(image)
    for _ in range(pick.choice((1, 1, 2, 4, 8))):
        at = pick.choice(used)
        if pick.randrange(2):
            changed[at] = pick.randrange(256)
        else:
            changed[at : at + 4] = pick.choice(harness.NUMBERS).to_bytes(4, "little")
    return bytes(changed[: pick.choice((len(changed), len(changed), pick.randrange(len(changed))))])


def attempt(seed: int, samples: Corpus, folder: Path) -> str:
    pick = random.Random(seed)  # noqa: S311
    try:
        match pick.randrange(4):
            case 0:
                return _inf(damage(pick.choice(samples.infs), pick, WORDS))
            case 1:
                return _image(folder, spoil(pick.choice(samples.images), pick))
            case 2:
                return _signature(dict(pick.choice(samples.signed)), pick)
            case _:
                return _source(folder, spoil(pick.choice(samples.sources), pick))
    except MigrationFailed as failure:
        if not (failure.message.isprintable() and len(failure.message) < 1000):
            raise ValueError(f"not one plain line: {failure!r}") from failure
        return failure.code


def _inf(data: bytes) -> str:
    found = parse_inf(data, "x.inf")
    for target in TARGETS:
        for model in (found.models(target) or (None, ()))[1]:
            found.installation(model, target)
    return "an INF"


def _image(folder: Path, data: bytes) -> str:
    path = folder / "virtio-win.iso"
    path.write_bytes(data)
    with DriverSource.open(path) as source:
        for name in source.names:
            assert name.isprintable() and not {"", ".", ".."} & set(name.split("/"))
            assert len(source.read(name)) <= len(data)
    return "an image"


def _signature(files: dict[str, bytes], pick: random.Random) -> str:
    name = pick.choice([name for name in files if not name.endswith(".pdb")])
    del files["viostor.pdb"]
    files[name] = damage(files[name], pick)
    found = read_signature(SignedFiles(files, "viostor.inf", "viostor.cat", "viostor.sys"))
    assert all(fault.isprintable() and len(fault) < 500 for fault in found.faults)
    for signer in filter(None, (found.catalog, found.embedded)):
        assert signer.kind == "vendor"  # the name may be damaged if the certificate of its issuer is as well
    if found.catalog and found.embedded:
        return "both signatures"
    return "one signature" if found.best else "no signature"


def _source(folder: Path, data: bytes) -> str:
    path = folder / "virtio-win.iso"
    path.write_bytes(data)
    with DriverSource.open(path) as source:
        packages = choose_packages(source, TARGETS[0])
        for package in packages:
            for form in ("full", "minimal", "critical"):
                records = records_of(package, StorePlace("oem0.inf", form=form))
                for file in records.files:
                    assert not {"", ".", ".."} & set(file.path.split("/"))
        assert all(one.message.isprintable() for one in signature_concerns(packages, secure_boot=True))
    return "packages"


def fuzz(seed: int, count: int) -> harness.Outcome:
    samples = corpus()
    return harness.fuzz(lambda number, folder: attempt(number, samples, folder), seed, count)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, fuzz, count=100_000))
