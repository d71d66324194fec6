"""A machine from its OVA, by the whole one-shot migration: `h2kvmctl --config`."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.disk.sources.location import is_as_before
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.host.person import Person
from hyper2kvmd.stages.plan import read_disks
from tests.support.ctl import ctl
from tests.support.disks import sh
from tests.support.ova import FORMS, Disk, envelope, manifest, read_ova
from tests.support.submitters import VICTIM
from tests.support.vmdk import full, make

SIZES = (3 << 20, 1 << 20)


def package(folder: Path) -> dict[str, bytes]:
    """Two disks, the second one compressed once more, and an empty one."""
    first = make(folder, "streamOptimized", full(SIZES[0]), SIZES[0]).read_bytes()
    (folder / "disk.vmdk").unlink()
    described = (Disk(SIZES[0], "web01-disk1.vmdk"), Disk(SIZES[1], "web01-disk2.raw.gz", "gzip"), Disk(2 << 20))
    files = {"web01.ovf": envelope(*described), "web01-disk1.vmdk": first}
    files["web01-disk2.raw.gz"] = gzip.compress(full(SIZES[1]))
    return {**files, "web01.mf": manifest(files)}


def run(folder: Path, files: dict[str, bytes], form: str, *more: str) -> subprocess.CompletedProcess[str]:
    FORMS[form](folder / "web01.ova", files)
    config, images = folder / "web01.yaml", folder / "images"
    lines = (
        f"ova: {folder / 'web01.ova'}",
        "vm_name: web01",
        "guest: none",
        "out_format: raw",
        f"output_dir: {images}",
    )
    config.write_text("\n".join((*lines, *more)) + "\n")
    return ctl("--config", config, "--conversion-dir", folder / "work", cwd=folder)


@pytest.mark.parametrize("form", FORMS)
def test_every_form(tmp_path: Path, form: str) -> None:
    done = run(tmp_path, package(tmp_path), form)
    assert done.returncode == 0, done.stderr
    images = [(tmp_path / "images" / name).read_bytes() for name in ("web01.raw", "web01-disk2.raw", "web01-disk3.raw")]
    assert images == [full(SIZES[0]), full(SIZES[1]), bytes(2 << 20)]
    report: dict[str, Any] = json.loads((tmp_path / "images" / "web01.report.json").read_text())
    assert len([line for line in report["verdict"]["evidence"] if line.endswith("is that of web01.mf")]) == 2
    assert report["plan"]["unpacked_bytes"] >= SIZES[1]
    assert not [*(tmp_path / "work").iterdir()], "nothing that was unpacked is left"


@pytest.mark.parametrize("form", ["tar", "gzip", "directory"])
@pytest.mark.parametrize("name", ["web01-disk1.vmdk", "web01-disk2.raw.gz"])
def test_a_disk_that_is_not_as_exported_is_never_published(tmp_path: Path, form: str, name: str) -> None:
    """The change is in bytes that no reader of the disk looks at."""
    files = package(tmp_path)
    files[name] += bytes(512)
    done = run(tmp_path, files, form)
    assert done.returncode == 1
    assert "[source-digest-differs]" in done.stderr or "[source-corrupt]" in done.stderr
    assert not (tmp_path / "images" / "web01.raw").exists()
    assert not [*(tmp_path / "work").iterdir()]


def test_the_plan_counts_what_is_unpacked(tmp_path: Path) -> None:
    done = run(tmp_path, package(tmp_path), "gzip", "dry_run: true")
    assert done.returncode == 0, done.stderr
    assert " there to unpack it" in done.stdout
    assert not (tmp_path / "work").exists()


def test_an_unpacked_disk_is_the_jobs_own(tmp_path: Path) -> None:
    """A retry continues with it, although the submitter cannot reach the working folder."""
    FORMS["gzip"](tmp_path / "web01.ova", package(tmp_path))
    work = tmp_path / "work"
    machine = read_ova(tmp_path / "web01.ova", work)
    work.chmod(0o700)
    mandate = Mandate(Person.of(int(sh("id", "-u", VICTIM))))
    with Sources(work, mandate) as sources:
        disks, _ = read_disks(sources, [disk.at for disk in machine.disks])
    assert all(is_as_before(disk, mandate) for disk in disks)
    disks[0].files[0].path.touch()
    assert [is_as_before(disk, mandate) for disk in disks] == [False, True, True]
