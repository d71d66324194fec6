"""A .vmx chooses which disks are opened: only those that its owner could read, below the allowed directories.

The migrations are one-shot runs of root. `nobody` owns the folder and the .vmx; the secret belongs to `games`.
"""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

import pytest

from hyper2kvmd.disk.sources.location import open_disk
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import Failure
from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.host.person import Person
from hyper2kvmd.machines.reader import read_machine
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import LocalFile, NamedBy
from tests.support.named_files import MALLORY, VICTIM, link, migrated, published, put, sparse
from tests.support.vmx import QUIET, text

UID = pwd.getpwnam(MALLORY).pw_uid


def vmx(folder: Path, written: str, owner: str = MALLORY, **more: str) -> Path:
    lines = {**QUIET, "scsi0:0.present": "TRUE", "scsi0:0.fileName": written.replace("|", "|7C"), **more}
    return put(folder / "web01.vmx", text(lines).encode(), owner)


def failure_of(path: Path, mandate: Mandate, **keys: object) -> Failure:
    asked = Migration.model_validate({"vmx": path, "vm_name": "evil", **keys})
    with pytest.raises(Failure) as caught, Sources(path.parent, mandate) as sources:
        sources.open([disk.at for disk in read_machine(asked, sources).disks])
    return caught.value


DATASTORE = "datastore_map: {{ssd1: '{folder}'}}\n"
HOSTILE: dict[str, tuple[str, str]] = {
    "beside it": ("secret.vmdk", ""),
    "a longer way": ("x/../secret.vmdk", ""),
    "an absolute path": ("{folder}/secret.vmdk", ""),
    "a path of Windows": ("C:\\VM\\secret.vmdk", ""),
    "another case": ("SECRET.vmdk", ""),
    "an unknown datastore": ("/vmfs/volumes/ssd1/x/secret.vmdk", ""),
    "a datastore": ("/vmfs/volumes/ssd1/secret.vmdk", DATASTORE),
    "the victim's folder": ("{folder}/home-games/secret.vmdk", ""),
    "a snapshot": ("own.vmdk", "snapshot: s\n"),
}
"""How the path is spelled, and more lines of the YAML."""


@pytest.mark.parametrize("name", HOSTILE)
def test_root_does_not_publish_a_disk_that_its_vmx_may_not_name(folder: Path, name: str) -> None:
    written, more = (one.format(folder=folder) for one in HOSTILE[name])
    link(folder, "secret.vmdk", sparse())
    put(folder / "own.vmdk", sparse())
    (folder / "x").mkdir()
    lines = {"snapshot0.displayName": "s", "snapshot0.disk0.node": "scsi0:0", "snapshot0.disk0.fileName": "secret.vmdk"}
    put(folder / "web01.vmsd", text(lines).encode())
    done = migrated(folder, vmx(folder, written), key="vmx", more=more)
    assert done.returncode == 3 and "[named-file-not-readable]" in done.stderr, done.stderr
    assert published(folder) == []


def test_a_vmsd_that_its_vmx_may_not_name(folder: Path) -> None:
    """Its snapshots would be listed in the error."""
    put(folder / "own.vmdk", sparse())
    link(folder, "web01.vmsd", text({"snapshot0.displayName": "Project Nightfall"}).encode())
    done = migrated(folder, vmx(folder, "own.vmdk"), key="vmx", more="snapshot: x\n")
    assert done.returncode == 3 and "[named-file-not-readable]" in done.stderr, done.stderr
    assert "Nightfall" not in done.stdout + done.stderr


def test_a_submitter_does_not_read_anothers_vmx(folder: Path) -> None:
    link(folder, "web01.vmx", text({**QUIET, "displayName": "Project Nightfall"}).encode())
    failure = failure_of(folder / "web01.vmx", Mandate(Person.of(UID)))
    assert failure.code == "submitter-may-not-read"
    assert "Nightfall" not in str(failure)


def test_a_submitter_does_not_learn_which_files_there_are(folder: Path) -> None:
    """The same words, whether the disk exists or not, in a directory that is closed to them."""
    link(folder, "secret.vmdk", sparse())
    (folder / "secret.vmdk").unlink()
    said = []
    for name in ("secret", "absent"):
        failure = failure_of(vmx(folder, f"{folder}/home-games/{name}.vmdk"), Mandate(Person.of(UID)))
        assert failure.code == "submitter-may-not-read"
        said.append(str(failure).replace(name, ""))
    assert said[0] == said[1]


def test_a_later_attempt_judges_the_disk_by_its_namer_as_well(folder: Path) -> None:
    """It reads no .vmx: the plan has the owner, who may be another one by now."""
    secret = link(folder, "secret.vmdk", sparse())
    path = vmx(folder, "secret.vmdk")
    named = LocalFile(path=secret, named_by=NamedBy(path=path, uid=UID))
    shutil.chown(path, "root")
    with pytest.raises(Failure) as caught, open_disk(named, folder, ANYONE):
        pass
    assert caught.value.code == "named-file-not-readable"


@pytest.mark.parametrize("written", ["../own.vmdk", "{above}/own.vmdk", "link/own.vmdk"])
def test_no_disk_is_outside_of_the_allowed_directories(folder: Path, written: str) -> None:
    put(folder.parent / "own.vmdk", sparse())
    (folder / "link").symlink_to(folder.parent)
    path = vmx(folder, written.format(above=folder.parent))
    assert failure_of(path, Mandate(folders=(folder,))).code == "path-not-allowed"


def test_a_path_does_not_lead_out_of_its_datastore(folder: Path) -> None:
    put(folder.parent / "own.vmdk", sparse())
    path = vmx(folder, "/vmfs/volumes/ssd1/../../own.vmdk")
    (folder / "a").mkdir()
    failure = failure_of(path, ANYONE, datastore_map={"ssd1": folder / "a"})
    assert failure.code == "vmx-disk-missing"


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "device"])
def test_a_disk_that_is_no_file(folder: Path, kind: str) -> None:
    path = folder / "disk.vmdk"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(put(folder / "own.vmdk", sparse()))
        case "folder":
            path.mkdir()
        case "device":
            os.mknod(path, 0o60666, os.makedev(7, 0))
    assert failure_of(vmx(folder, "disk.vmdk"), ANYONE).code == "source-unsafe"


# ---------------------------------------------------------------- what stays allowed


@pytest.mark.parametrize("case", ["their own", "readable by all", "named by root"])
def test_a_disk_that_the_owner_of_the_vmx_may_read(folder: Path, case: str) -> None:
    if case == "their own":
        put(folder / "disk.vmdk", sparse(), mode=0o600)
    else:
        link(folder, "disk.vmdk", sparse(), mode=0o644 if case == "readable by all" else 0o600)
    owner = "root" if case == "named by root" else MALLORY
    done = migrated(folder, vmx(folder, "disk.vmdk", owner), key="vmx")
    assert done.returncode == 0, done.stderr
    assert "evil.qcow2" in {path.name for path in published(folder)}
    assert VICTIM not in done.stderr
