"""Targets that describe the machine in files beside the images: what they write, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.orders import Order
from hyper2kvmd.targets.target import Target
from tests.support.benches import bench_for
from tests.support.libvirtd import registered
from tests.support.new_machines import FORMS


@contextmanager
def target_for(folder: Path, target: str, **keys: object) -> Iterator[Target]:
    migration = Migration.model_validate({"vmdk": "/srv/web01.vmdk", "vm_name": "web01", "target": target, **keys})
    order = Order(job_id="1", migration=migration, conversion_dir=folder, output_dir=folder, helper=("none",))
    with bench_for(order, folder) as bench:
        yield bench.target


@pytest.mark.parametrize("target", FORMS)
def test_files_are_beside_the_images(target: str, tmp_path: Path) -> None:
    done = registered(tmp_path, target=target)
    assert [file.name for file in done.files] == FORMS[target].names("web01")
    assert all("web01.qcow2" in file.read_text() and file.parent == tmp_path for file in done.files)
    assert (done.name, done.defined, done.uri) == ("web01", False, None)
    assert done.macs == ("00:50:56:01:02:03", "52:54:00:01:02:04")
    assert not list(tmp_path.glob("*.xml"))
    assert registered(tmp_path, target=target) == done


@pytest.mark.parametrize("target", FORMS)
def test_a_file_of_somebody_else_is_refused_before_the_work(target: str, tmp_path: Path) -> None:
    with target_for(tmp_path, target) as fresh:
        fresh.check()
        theirs = tmp_path / FORMS[target].names("web01")[-1]
        theirs.write_text("somebody's")
        with pytest.raises(MigrationFailed) as caught:
            fresh.check()
    assert caught.value.code == "output-exists"
    assert theirs.name in caught.value.message


@pytest.mark.parametrize("target", FORMS)
def test_a_file_of_somebody_else_stays(target: str, tmp_path: Path) -> None:
    last = tmp_path / FORMS[target].names("web01")[-1]
    last.write_text("somebody's")
    with pytest.raises(MigrationFailed) as caught:
        registered(tmp_path, target=target)
    assert caught.value.code == "output-exists"
    assert last.read_text() == "somebody's"
    assert {path.name for path in tmp_path.iterdir()} == {"web01.qcow2", last.name}


def test_files_of_an_earlier_job_are_not_in_the_way_of_one_that_overwrites(tmp_path: Path) -> None:
    registered(tmp_path, target="qemu")
    (tmp_path / "web01.qcow2").unlink()  # made by the test
    with target_for(tmp_path, "qemu", overwrite=True) as replacing, target_for(tmp_path, "qemu") as careful:
        replacing.check()
        with pytest.raises(MigrationFailed):
            careful.check()
        (tmp_path / "web01.sh").write_text("edited")
        with pytest.raises(MigrationFailed):
            replacing.check()
