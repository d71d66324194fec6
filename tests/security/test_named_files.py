"""Files that a file names: a hard link gives its maker a name for another user's disk, not the right to have it read.

The migrations are one-shot runs of root and of the service user, and a worker's job. `nobody` owns the folder and what
lies in it, unless a case says otherwise; the secret belongs to `games`.
"""

from __future__ import annotations

import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.machines.reader import read_machine
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import LocalFile
from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import Ended, read_event
from tests.support.host import MIB, USER, as_service, service_python
from tests.support.named_files import SECTORS, VICTIM, flat, link, migrated, places, published, put, sparse
from tests.support.vmdk_images import descriptor

CARD = "00:50:56:0a:0b:0c"
Maker = Callable[[Path], Path]
"""Makes a disk in a folder of the attacker's and returns its path. `secret` in that folder is the victim's."""


def flat_extent(folder: Path) -> Path:
    link(folder, "secret", b"S" * MIB)
    return put(folder / "disk.vmdk", flat("secret"))


def sparse_extent(folder: Path) -> Path:
    link(folder, "secret", sparse(alone=False))
    return put(folder / "disk.vmdk", descriptor("twoGbMaxExtentSparse", f'RW {SECTORS} SPARSE "secret"'))


def second_extent(folder: Path) -> Path:
    link(folder, "secret", b"S" * MIB)
    put(folder / "own", bytes(MIB))
    lines = (f'RW {SECTORS} FLAT "own" 0', f'RW {SECTORS} FLAT "secret" 0')
    return put(folder / "disk.vmdk", descriptor("monolithicFlat", *lines))


def parent(folder: Path) -> Path:
    link(folder, "secret", sparse())
    return put(folder / "disk.vmdk", sparse(parent="secret"))


def extent_of_a_parent(folder: Path) -> Path:
    link(folder, "secret", b"S" * MIB)
    put(folder / "parent.vmdk", flat("secret"))
    return put(folder / "disk.vmdk", sparse(parent="parent.vmdk"))


def extent_of_a_parent_of_roots(folder: Path) -> Path:
    """Root's snapshot may name the parent; whose extent is judged by the parent's owner."""
    path = extent_of_a_parent(folder)
    shutil.chown(path, "root")
    return path


def extent_that_root_names_first(folder: Path) -> Path:
    link(folder, "secret", b"S" * MIB)
    put(folder / "parent.vmdk", flat("secret"))
    return put(folder / "disk.vmdk", flat("secret", parent="parent.vmdk"), owner="root")


def extent_of_roots(folder: Path) -> Path:
    link(folder, "secret", b"S" * MIB, owner="root")
    return put(folder / "disk.vmdk", flat("secret"))


def extent_of_the_services(folder: Path) -> Path:
    link(folder, "secret", b"S" * MIB, owner=USER)
    return put(folder / "disk.vmdk", flat("secret"))


HOSTILE: dict[str, Maker] = {
    "flat extent": flat_extent,
    "sparse extent": sparse_extent,
    "second extent": second_extent,
    "parent": parent,
    "parent's extent": extent_of_a_parent,
    "parent's extent, below root's snapshot": extent_of_a_parent_of_roots,
    "extent that root's snapshot names too": extent_that_root_names_first,
    "root's extent": extent_of_roots,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_root_does_not_publish_what_a_disk_names_by_a_hard_link(folder: Path, name: str) -> None:
    done = migrated(folder, HOSTILE[name](folder))
    assert done.returncode == 3 and "[named-file-not-readable]" in done.stderr, done.stderr
    assert f"{folder}/secret: " in done.stderr
    assert published(folder) == []


def test_the_service_user_does_not_publish_its_own_file_for_a_disks_owner(folder: Path) -> None:
    done = migrated(folder, extent_of_the_services(folder), *as_service())
    assert done.returncode == 3 and "[named-file-not-readable]" in done.stderr, done.stderr
    assert published(folder) == []


def test_a_job_of_somebody_who_may_read_both(folder: Path) -> None:
    """The submitter's right to the extent is not the right of who names it."""
    disk = extent_of_the_services(folder)
    (folder / f"home-{USER}").chmod(0o755)
    conversions, out = places(folder, USER)
    order = Order(
        job_id="7",
        migration=Migration(vmdk=(disk,), vm_name="evil"),
        submitter=USER,
        submitter_uid=pwd.getpwnam(USER).pw_uid,
        conversion_dir=conversions,
        output_dir=out,
        helper=("none",),
        space_reserve="0",
    )
    argv, text = service_python("hyper2kvmd.worker"), f"{order.model_dump_json()}\ngo\nrecorded\n"
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=120, cwd="/", check=True)
    ended = read_event(done.stdout.splitlines()[-1])
    assert isinstance(ended, Ended)
    assert [one.code for one in ended.problems] == ["named-file-not-readable"]
    assert published(folder) == []


VMX = f"""ethernet0.present = "TRUE"
ethernet0.addressType = "vpx"
ethernet0.generatedAddress = "{CARD}"
"""


@pytest.mark.parametrize("hard_link", [True, False], ids=["a link", "their own"])
def test_a_vmx_that_the_disks_owner_may_not_read(folder: Path, hard_link: bool) -> None:
    """It is left out with a warning, and is used where it is the owner's."""
    disk = put(folder / "disk.raw", bytes(MIB))
    if hard_link:
        link(folder, "disk.vmx", VMX.encode())
    else:
        put(folder / "disk.vmx", VMX.encode(), mode=0o600)
    done = migrated(folder, disk)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert (f"{folder}/disk.vmx: belongs to {VICTIM}" in said) is hard_link
    texts = "".join(path.read_text() for path in published(folder) if path.suffix != ".qcow2")
    assert (CARD in texts) is not hard_link


@pytest.mark.parametrize("hard_link", [True, False], ids=["a link", "their own"])
def test_a_snapshot_that_the_disks_owner_may_not_read(folder: Path, hard_link: bool) -> None:
    """It is no evidence, and is one where it is the owner's."""
    put(folder / "extent", bytes(MIB))
    disk, child = put(folder / "disk.vmdk", flat("extent")), sparse(parent="disk.vmdk")
    if hard_link:
        link(folder, "disk-000001.vmdk", child)
    else:
        put(folder / "disk-000001.vmdk", child, mode=0o600)
    done = migrated(folder, disk)
    assert (done.returncode == 0) is hard_link, done.stderr
    assert ("[source-has-snapshot]" in done.stderr) is not hard_link


def test_a_disk_whose_name_leads_to_another_by_the_time_its_vmx_is_read(folder: Path) -> None:
    """The owner of the disk that is open counts: root, who migrates, could read any .vmx."""
    disk = put(folder / "disk.raw", bytes(MIB))
    link(folder, "disk.vmx", VMX.encode())
    with Sources(folder) as sources:
        sources.open([LocalFile(path=disk)])
        disk.unlink()
        put(disk, bytes(MIB), owner="root")
        machine = read_machine(Migration(vmdk=(disk,), vm_name="evil"), sources)
    assert machine.nics == ()
    assert f"{folder}/disk.vmx: belongs to {VICTIM}" in machine.concerns[0].message


# ---------------------------------------------------------------- what stays allowed


def of_one_owner(folder: Path) -> Path:
    put(folder / "extent", b"S" * MIB, mode=0o600)
    return put(folder / "disk.vmdk", flat("extent"), mode=0o600)


def open_to_all(folder: Path) -> Path:
    link(folder, "extent", b"S" * MIB, mode=0o644)
    return put(folder / "disk.vmdk", flat("extent"))


def closed_even_to_its_owner(folder: Path) -> Path:
    put(folder / "extent", b"S" * MIB, mode=0)
    return put(folder / "disk.vmdk", flat("extent"))


def named_by_root(folder: Path) -> Path:
    link(folder, "extent", b"S" * MIB)
    return put(folder / "disk.vmdk", flat("extent"), owner="root")


def chain_of_two_owners(folder: Path) -> Path:
    link(folder, "parent.vmdk", sparse(), mode=0o644)
    return put(folder / "disk.vmdk", sparse(parent="parent.vmdk"))


ALLOWED: dict[str, Maker] = {
    "one owner": of_one_owner,
    "readable by all": open_to_all,
    "their own, without any mode": closed_even_to_its_owner,
    "root's descriptor": named_by_root,
    "a chain": chain_of_two_owners,
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_an_owner_may_name(folder: Path, name: str) -> None:
    done = migrated(folder, ALLOWED[name](folder))
    assert done.returncode == 0, done.stderr
    assert "evil.qcow2" in {path.name for path in published(folder)}
