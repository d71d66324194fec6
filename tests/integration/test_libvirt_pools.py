"""Images as volumes of a storage pool, in a real libvirtd."""

from __future__ import annotations

import json
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.files import write_durably
from hyper2kvmd.model.results import Registration
from hyper2kvmd.targets.libvirt import pool as pool_module
from hyper2kvmd.targets.libvirt.pool import Pool
from tests.support.libvirtd import NOBODY, examined, registered, unplug, virsh
from tests.support.libvirtd import libvirt as libvirt
from tests.support.libvirtd import libvirtd as libvirtd

POOL = "fast"


@pytest.fixture(scope="module")
def pool(libvirt: tuple[str, Path]) -> Iterator[Path]:
    """The directory of a pool."""
    uri, images = libvirt
    folder = images.with_name(f"{images.name}-pool")
    folder.mkdir(mode=0o755)
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    virsh(uri, "pool-create-as", POOL, "dir", "--target", str(folder))
    yield folder
    virsh(uri, "pool-destroy", POOL)
    shutil.rmtree(folder)


def uploaded(libvirt: tuple[str, Path], name: str, **keys: Any) -> Registration:
    uri, images = libvirt
    return registered(images, libvirt_import=True, libvirt_uri=uri, libvirt_pool=POOL, vm_name=name, **keys)


def sources(uri: str, name: str) -> list[dict[str, str]]:
    return [
        one.attrib for one in ET.fromstring(virsh(uri, "dumpxml", "--inactive", name)).iterfind("devices/disk/source")
    ]


@pytest.mark.parametrize("out_format", ["qcow2", "raw"])
def test_a_domain_starts_from_its_volumes(libvirt: tuple[str, Path], pool: Path, out_format: str) -> None:
    uri, images = libvirt
    name = out_format  # short: the path of a socket contains it
    disks = [f"/srv/{name}.vmdk", "/srv/data.vmdk"]
    domain = uploaded(libvirt, name, out_format=out_format, vmdk=disks, memory=256, vcpus=1)
    files = [f"{name}.{out_format}", f"{name}-disk2.{out_format}"]
    assert sources(uri, name) == [{"pool": POOL, "volume": file} for file in files]
    assert all((pool / file).read_bytes() == (images / file).read_bytes() for file in files)
    unplug(uri, domain)
    virsh(uri, "start", name)
    assert virsh(uri, "domstate", name).strip() == "running"
    virsh(uri, "destroy", name)


def test_an_attempt_after_a_crash_uploads_nothing_again(libvirt: tuple[str, Path], pool: Path, tmp_path: Path) -> None:
    first = uploaded(libvirt, "again", own=tmp_path)
    before = (pool / "again.qcow2").stat()
    assert uploaded(libvirt, "again", own=tmp_path) == first
    assert (pool / "again.qcow2").stat() == before


def test_a_volume_of_somebody_else_is_never_overwritten_or_removed(
    libvirt: tuple[str, Path], pool: Path, tmp_path: Path
) -> None:
    uri, _ = libvirt
    virsh(uri, "vol-create-as", POOL, "theirs-disk2.qcow2", "1M", "--format", "raw")
    before = (pool / "theirs-disk2.qcow2").stat()
    disks = ["/srv/a.vmdk", "/srv/b.vmdk"]
    with pytest.raises(MigrationFailed) as caught:
        uploaded(libvirt, "theirs", vmdk=disks)
    assert caught.value.code == "volume-exists"
    assert (pool / "theirs-disk2.qcow2").stat() == before
    assert not (pool / "theirs.qcow2").exists()
    with pytest.raises(MigrationFailed, match="already has a volume theirs-disk2") as caught:
        examined(uri, tmp_path, vm_name="theirs-disk2", libvirt_pool=POOL)
    assert caught.value.code == "volume-exists"


def test_a_volume_that_somebody_creates_meanwhile_is_not_removed(
    libvirt: tuple[str, Path], pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the pool and the creation, which is interrupted."""
    uri, _ = libvirt
    run = Pool._run

    def interrupted(self: Pool, *words: str) -> str:
        if words[0] == "vol-create-as":
            virsh(uri, "vol-create-as", POOL, "meanwhile.qcow2", "1M", "--format", "raw")
            raise KeyboardInterrupt
        return run(self, *words)

    monkeypatch.setattr(Pool, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        uploaded(libvirt, "meanwhile", own=tmp_path)
    monkeypatch.undo()
    with pytest.raises(MigrationFailed) as caught:
        uploaded(libvirt, "meanwhile", own=tmp_path)
    assert caught.value.code == "volume-exists"
    assert (pool / "meanwhile.qcow2").stat().st_size == 1 << 20


def test_a_rejected_domain_leaves_no_volume(libvirt: tuple[str, Path], pool: Path) -> None:
    with pytest.raises(MigrationFailed) as caught:
        uploaded(libvirt, "toobig", vcpus=1000)
    assert caught.value.code == "libvirt-define-failed"
    assert not (pool / "toobig.qcow2").exists()
    assert (libvirt[1] / "toobig.qcow2").exists()


def test_the_volumes_of_a_killed_attempt_are_made_again(libvirt: tuple[str, Path], pool: Path, tmp_path: Path) -> None:
    uri, images = libvirt
    virsh(uri, "vol-create-as", POOL, "killed.qcow2", "1M", "--format", "raw")
    (tmp_path / "uploading.json").write_text(json.dumps({"killed.qcow2": None}))
    uploaded(libvirt, "killed", own=tmp_path)
    assert (pool / "killed.qcow2").read_bytes() == (images / "killed.qcow2").read_bytes()


@pytest.mark.parametrize("out_format", ["qcow2", "raw"])
def test_the_empty_volume_of_an_attempt_that_was_killed_at_once_is_made_again(
    libvirt: tuple[str, Path], pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out_format: str
) -> None:
    """Killed when libvirt had created the volume, before the note could say so."""
    write = write_durably

    def killed(note: Path, text: str) -> None:
        if None in json.loads(text).values():
            monkeypatch.setattr(Pool, "take_back", lambda *_: None)
            raise KeyboardInterrupt
        write(note, text)

    name = f"at-once-{out_format}"
    monkeypatch.setattr(pool_module, "write_durably", killed)
    with pytest.raises(KeyboardInterrupt):
        uploaded(libvirt, name, own=tmp_path, out_format=out_format)
    monkeypatch.undo()
    assert (pool / f"{name}.{out_format}").exists()
    uploaded(libvirt, name, own=tmp_path, out_format=out_format)
    assert (pool / f"{name}.{out_format}").read_bytes() == (libvirt[1] / f"{name}.{out_format}").read_bytes()


def test_a_volume_with_content_is_not_the_empty_one_of_a_killed_attempt(
    libvirt: tuple[str, Path], pool: Path, tmp_path: Path
) -> None:
    uri, _ = libvirt
    content = tmp_path / "content"
    content.write_bytes(b"x" * (1 << 20))
    virsh(uri, "vol-create-as", POOL, "filled.qcow2", "1M", "--format", "raw")
    virsh(uri, "vol-upload", "--pool", POOL, "filled.qcow2", str(content))
    (tmp_path / "uploading.json").write_text(json.dumps({"filled.qcow2": 1 << 20}))
    with pytest.raises(MigrationFailed) as caught:
        uploaded(libvirt, "filled", own=tmp_path)
    assert caught.value.code == "volume-exists"
    assert (pool / "filled.qcow2").read_bytes() == content.read_bytes()


def test_files_in_the_directory_of_the_pool_are_its_volumes_already(libvirt: tuple[str, Path], tmp_path: Path) -> None:
    uri, images = libvirt
    virsh(uri, "pool-create-as", "here", "dir", "--target", str(images))
    assert examined(uri, images, vm_name="placed", libvirt_pool="here")
    registered(images, libvirt_import=True, libvirt_uri=uri, libvirt_pool="here", vm_name="placed")
    assert sources(uri, "placed") == [{"pool": "here", "volume": "placed.qcow2"}]
    assert "placed.qcow2" in virsh(uri, "vol-list", "here")
    virsh(uri, "pool-destroy", "here")


def test_a_pool_that_is_not_there_is_refused_by_the_plan(libvirt: tuple[str, Path], tmp_path: Path) -> None:
    uri, _ = libvirt
    with pytest.raises(MigrationFailed) as caught:
        examined(uri, tmp_path, libvirt_pool="nowhere")
    assert caught.value.code == "pool-unusable"
    assert "the storage pool nowhere of libvirt" in caught.value.message
