"""Driver sources that a submitter names: what they lead to, what they write, and what reading them costs."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hyper2kvmd.errors import Failure
from hyper2kvmd.guest.windows.drivers import choice
from hyper2kvmd.guest.windows.drivers.choice import choose_packages
from hyper2kvmd.guest.windows.drivers.releases import WindowsTarget
from hyper2kvmd.guest.windows.drivers.source import DriverSource
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.host.person import Person
from tests.support.authenticode import (
    INDIRECT,
    Authority,
    authenticode_digest,
    indirect,
    spoiled,
    vendor,
    with_signature,
)
from tests.support.disks import sh
from tests.support.iso_image import iso
from tests.support.own_host import FOLDER_PREFIX
from tests.support.submitters import VICTIM
from tests.support.virtio_win import FILES, Package, program

TARGET = WindowsTarget(17763, True, "amd64")
MALLORY = "games"
DRIVER = program()
CHANGED = DRIVER[:0x210] + b"payload" + DRIVER[0x217:]


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody may search."""
    made = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def drivers() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for driver in FILES:
        found |= {f"{driver}/{name}": data for name, data in Package(driver, "2k19").files(vendor()).items()}
    return found


def written(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def image(folder: Path, files: Mapping[str, bytes]) -> Path:
    path = folder / "virtio-win.iso"
    path.write_bytes(iso(files))
    return path


def of(person: str) -> Mandate:
    return Mandate(Person.of(int(sh("id", "-u", person))))


def outcome(path: Path, mandate: Mandate) -> str:
    try:
        with DriverSource.open(path, mandate) as source:
            choose_packages(source, TARGET)
    except Failure as failure:
        return failure.code
    return "packages"


# ---------------------------------------------------------------- rights


def test_an_image_that_the_submitter_may_not_read(shared: Path) -> None:
    path = image(shared, drivers())
    assert outcome(path, of(VICTIM)) == "packages"
    shutil.chown(path, MALLORY)
    path.chmod(0o600)
    assert outcome(path, of(VICTIM)) == "submitter-may-not-read"


def test_a_link_to_an_image_that_the_submitter_may_not_read(shared: Path) -> None:
    secret = shared / "secret"
    secret.mkdir()
    path = image(secret, drivers())
    link = shared / "link.iso"
    link.symlink_to("secret/virtio-win.iso")
    assert outcome(link, of(VICTIM)) == "packages"
    path.chmod(0o600)
    assert outcome(link, of(VICTIM)) == "submitter-may-not-read"


def test_a_link_into_a_closed_folder_reveals_nothing(shared: Path) -> None:
    """Neither whether the file exists nor where a link in there leads to."""
    closed = shared / "closed"
    closed.mkdir(mode=0o700)
    image(closed, drivers())
    (closed / "link").symlink_to("/srv/secret-project")
    for name in ("virtio-win.iso", "link", "missing"):
        link = shared / f"to-{name}"
        link.symlink_to(closed / name)
        with pytest.raises(Failure) as caught:
            DriverSource.open(link, of(VICTIM))
        assert caught.value.code == "submitter-may-not-read"
        assert "secret-project" not in str(caught.value)


def test_an_image_outside_the_allowed_directories(shared: Path) -> None:
    (shared / "allowed").mkdir()
    path = image(shared, drivers())
    link = shared / "allowed/link.iso"
    link.symlink_to(path)
    for named in (path, link):
        assert outcome(named, Mandate(None, (shared / "allowed",))) == "path-not-allowed"


def test_a_file_in_a_folder_that_the_submitter_may_not_read(shared: Path) -> None:
    root = written(shared / "virtio-win", drivers())
    assert outcome(root, of(VICTIM)) == "packages"
    (root / "viostor/viostor.sys").chmod(0o600)
    assert outcome(root, of(VICTIM)) == "submitter-may-not-read"


def test_a_folder_that_the_submitter_may_not_list(shared: Path) -> None:
    root = written(shared / "virtio-win", drivers())
    (root / "viostor").chmod(0o711)
    with DriverSource.open(root, of(VICTIM)) as source:
        assert not any(name.startswith("viostor") for name in source.names)
        assert any(name.startswith("vioscsi") for name in source.names)


def test_a_link_in_a_folder_leads_nowhere(shared: Path) -> None:
    written(shared / "elsewhere", {"oem0.inf": b"[Version]\n"})
    root = written(shared / "virtio-win", drivers())
    (root / "more").symlink_to(shared / "elsewhere")
    (root / "again").symlink_to(root)
    with DriverSource.open(root, of(VICTIM)) as source:
        assert not any(name.startswith(("more", "again")) for name in source.names)


# ---------------------------------------------------------------- what they write


PLACES = {
    "a file elsewhere in the guest": ("viostor.sys,,,2", "viostor.sys\n..\\config\\SAM,viostor.sys"),
    "the service of another driver": ("AddService = viostor,", "AddService = x\\..\\WinDefend,"),
    "a catalogue elsewhere": ("CatalogFile=viostor.cat", "CatalogFile=..\\viostor.cat"),
    "a section of many keys": ("scsi_inst", "a\\b\\c"),
}


@pytest.mark.parametrize(("old", "new"), PLACES.values(), ids=PLACES)
def test_an_inf_that_names_another_place(tmp_path: Path, old: str, new: str) -> None:
    files = drivers()
    text = files["viostor/viostor.inf"].decode()
    assert old in text
    data = text.replace(old, new).encode()
    files["viostor/viostor.inf"] = data
    files["viostor/viostor.cat"] = vendor().sign_catalog([hashlib.sha256(data).digest(), authenticode_digest(DRIVER)])
    assert outcome(image(tmp_path, files), Mandate()) == "virtio-win-no-driver"


# ---------------------------------------------------------------- signatures


def forged(signer: Authority, driver: bytes = CHANGED) -> dict[str, bytes]:
    """A driver with a payload, and the signature of the driver without."""
    digest = indirect("sha256", authenticode_digest(DRIVER))
    return {
        **{name: data for name, data in drivers().items() if name != "viostor/viostor.cat"},
        "viostor/viostor.sys": with_signature(driver, signer.signed(INDIRECT, digest)),
    }


def test_a_driver_that_was_changed_after_it_was_signed(tmp_path: Path) -> None:
    assert outcome(image(tmp_path, forged(vendor(), DRIVER)), Mandate()) == "packages"
    assert outcome(image(tmp_path, forged(vendor())), Mandate()) == "driver-not-signed"


def test_a_signature_that_its_certificate_did_not_make(tmp_path: Path) -> None:
    assert outcome(image(tmp_path, forged(spoiled(vendor()), DRIVER)), Mandate()) == "driver-not-signed"


def test_a_signature_with_another_content(tmp_path: Path) -> None:
    """The digest of the changed driver, in the signed data of the original one."""
    files = forged(vendor())
    name = "viostor/viostor.sys"
    files[name] = files[name].replace(authenticode_digest(DRIVER), authenticode_digest(CHANGED))
    assert outcome(image(tmp_path, files), Mandate()) == "driver-not-signed"


def test_a_catalogue_of_another_driver(tmp_path: Path) -> None:
    files = {**drivers(), "viostor/viostor.sys": CHANGED}
    assert outcome(image(tmp_path, files), Mandate()) == "driver-not-signed"


# ---------------------------------------------------------------- costs


def test_a_file_of_a_driver_that_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "LARGEST_DRIVER", 4096)
    files = {**drivers(), "viostor/viostor.sys": DRIVER.ljust(4097, b"\0")}
    assert outcome(image(tmp_path, files), Mandate()) == "virtio-win-no-driver"


def test_a_package_that_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(image(tmp_path, drivers()), Mandate()) == "packages"
    monkeypatch.setattr(choice, "LARGEST_PACKAGE", 4096)
    assert outcome(image(tmp_path, drivers()), Mandate()) == "virtio-win-no-driver"


def test_more_inf_files_than_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "ALL_INFS", 4096)
    assert outcome(image(tmp_path, drivers()), Mandate()) == "virtio-win-unreadable"


def test_folders_without_end(tmp_path: Path) -> None:
    root = written(tmp_path / "virtio-win", {"/".join("d" * 30) + "/x.inf": b"", **drivers()})
    with DriverSource.open(root) as source:
        assert not any(name.endswith("x.inf") for name in source.names)


def test_a_folder_with_more_files_than_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyper2kvmd.guest.windows.drivers.folder.MOST_NAMES", 10)
    assert outcome(written(tmp_path / "virtio-win", drivers()), Mandate()) == "virtio-win-unreadable"
