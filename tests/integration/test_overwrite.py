"""`overwrite: true`: a second migration replaces the results of the first, and nothing else."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host.leftovers import ASIDE_END, rename_back
from hyper2kvmd.host.placed import MARK
from hyper2kvmd.host.placing import Placing
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.orders import Order
from hyper2kvmd.targets import directory
from tests.support.libvirtd import registered
from tests.support.publishing import names, run_publish, sparse_image

RESULTS = {"web01.raw", "web01.raw.sha256", "web01.report.json", "web01.report.md"}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A directory with the results of an earlier job."""
    (tmp_path / "first").mkdir()
    folder = tmp_path / "out"
    run_publish(sparse_image(tmp_path / "first"), folder, checksum=True)
    return folder


def again(output: Path, **keys: Any) -> Path:
    """The image of a second job, whose results are published."""
    folder = output.parent / "second"
    folder.mkdir()
    image = sparse_image(folder)
    run_publish(image, output, checksum=True, **{"overwrite": True, **keys})
    return image


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_results_of_an_earlier_job_are_replaced(output: Path) -> None:
    before = contents(output)
    image = again(output)
    after = contents(output)
    assert set(after) == RESULTS
    assert after["web01.raw"] == image.read_bytes()
    assert all(after[name] != before[name] for name in RESULTS - {"web01.report.md"})


def test_without_the_key_nothing_is_replaced(output: Path) -> None:
    refused(output, "appeared", overwrite=False)


def refused(output: Path, word: str, **keys: Any) -> None:
    before = contents(output)
    with pytest.raises(MigrationFailed) as caught:
        again(output, **keys)
    assert caught.value.code == "output-exists" and word in caught.value.message
    assert contents(output) == before


def edited(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def appended(path: Path) -> None:
    facts = path.stat()
    with path.open("ab") as file:
        file.write(b"x")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def copied(path: Path) -> None:
    """As a backup brings it back."""
    mark, facts, content = os.getxattr(path, MARK), path.stat(), path.read_bytes()
    other = path.with_name("other")
    other.write_bytes(content)
    os.setxattr(other, MARK, mark)
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    other.rename(path)


def given_away(path: Path) -> None:
    facts = path.stat()
    os.chown(path, 65534, 65534)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def somebodys(path: Path) -> None:
    path.unlink()
    path.write_text("somebody's")


def linked(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


@pytest.mark.parametrize("change", [edited, appended, copied, given_away, somebodys, linked])
@pytest.mark.parametrize("name", sorted(RESULTS))
def test_a_file_that_changed_is_not_replaced(output: Path, name: str, change: Callable[[Path], None]) -> None:
    change(output / name)
    refused(output, "no mark" if change in (somebodys, linked) else "differs from what hyper2kvmd wrote")


def test_the_check_before_a_migration_says_what_was_changed(output: Path) -> None:
    edited(output / "web01.raw")
    somebodys(output / "web01.report.md")
    migration = Migration(vmdk=(Path("/d"),), vm_name="web01", out_format="raw", overwrite=True)
    order = Order(job_id="2", migration=migration, conversion_dir=output, output_dir=output, helper=())
    with pytest.raises(MigrationFailed) as caught:
        directory.check(order, 1)
    assert "web01.raw differs from what hyper2kvmd wrote" in caught.value.message
    assert "web01.report.md has no mark" in caught.value.message and "web01.report.json has" not in caught.value.message
    assert "move them away" in caught.value.hint


def test_a_directory_is_not_replaced(output: Path) -> None:
    (output / "web01.report.md").unlink()
    (output / "web01.report.md").mkdir()
    with pytest.raises(MigrationFailed) as caught:
        again(output)
    assert caught.value.code == "output-exists"
    assert names(output) == RESULTS


def test_results_of_another_submitter_are_not_replaced(output: Path) -> None:
    refused(output, "of another machine or submitter", submitter_uid=1000)


def test_results_of_another_machine_are_not_replaced(output: Path) -> None:
    """Two YAMLs may name one image: the later one is no newer version of the first."""
    refused(output, "of another machine or submitter", vm_name="web02", to_output="web01.raw")


def test_a_failure_brings_the_old_files_back(output: Path) -> None:
    """The image gets its name last: all other files have theirs by then."""
    edited(output / "web01.raw")
    refused(output, "differs from what hyper2kvmd wrote")
    assert not list(output.glob(".*"))


def test_a_job_that_was_killed_is_finished_by_the_next_attempt(output: Path) -> None:
    """Killed when all files were set aside and had new ones in their places."""
    before = contents(output)
    image = again(output)
    new = contents(output)
    for name, content in before.items():
        (output / f".{name}.7.replaced").write_bytes(content)
    run_publish(image, output, checksum=True, overwrite=True)
    assert contents(output) == new


def test_a_job_that_was_killed_brings_them_back(output: Path) -> None:
    """One of the new files has gone since, and the next attempt fails."""
    before = contents(output)
    image = again(output)
    for name, content in before.items():
        (output / f".{name}.7.replaced").write_bytes(content)
    (output / "web01.report.md").unlink()
    with pytest.raises(MigrationFailed):
        run_publish(image, output, checksum=True)
    assert contents(output) == before


def left_behind(output: Path, *left: str) -> None:
    """A job was killed when it had set these files aside, and is never retried."""
    for name in left:
        (output / name).rename(output / f".{name}.20260101T000000Z-9.replaced")


def test_the_next_job_brings_back_what_a_killed_one_set_aside(output: Path) -> None:
    before = contents(output)
    left_behind(output, "web01.raw", "web01.raw.sha256")
    with pytest.raises(MigrationFailed) as caught:
        again(output, overwrite=False)
    assert caught.value.code == "output-exists"
    assert contents(output) == before


def test_the_next_job_replaces_what_a_killed_one_set_aside(output: Path) -> None:
    left_behind(output, "web01.raw", "web01.report.json")
    image = again(output)
    assert names(output) == RESULTS
    assert (output / "web01.raw").read_bytes() == image.read_bytes()


def test_files_that_a_running_job_set_aside_are_left_to_it(output: Path) -> None:
    """When it is over, those that have successors are removed."""
    left_behind(output, *RESULTS)
    hidden = names(output)
    running = os.open(output, os.O_RDONLY)
    try:
        fcntl.flock(running, fcntl.LOCK_SH)
        again(output)
        assert names(output) == RESULTS | hidden
    finally:
        os.close(running)
    shutil.rmtree(output.parent / "second")
    again(output)
    assert names(output) == RESULTS


def test_a_file_that_another_job_gives_its_name_back_is_replaced(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other job had the lock of the directory first."""
    set_aside, given_back = Placing._set_aside, set[str]()

    def set_aside_and_give_back(placing: Placing, name: str) -> None:
        set_aside(placing, name)
        if name not in given_back:
            given_back.add(name)
            directory = os.open(output, os.O_RDONLY)
            assert rename_back(directory, f".{name}.7.{ASIDE_END}", name)
            os.close(directory)

    monkeypatch.setattr(Placing, "_set_aside", set_aside_and_give_back)
    image = again(output)
    assert given_back == names(output) == RESULTS
    assert (output / "web01.raw").read_bytes() == image.read_bytes()


@pytest.mark.parametrize("change", [edited, given_away, somebodys])
def test_a_hidden_file_that_is_not_of_such_a_job_is_left(output: Path, change: Callable[[Path], None]) -> None:
    left_behind(output, "web01.raw")
    (hidden,) = output.glob(".*")
    change(hidden)
    before = hidden.read_bytes()
    again(output)
    assert names(output) == RESULTS | {hidden.name}
    assert hidden.read_bytes() == before


@pytest.mark.parametrize("target", ["libvirt", "kubevirt"])
def test_files_that_describe_the_machine_are_replaced_as_well(target: str, tmp_path: Path) -> None:
    first = registered(tmp_path, target=target, memory=256)
    before = [file.read_text() for file in first.files]
    with pytest.raises(MigrationFailed):
        registered(tmp_path, target=target, memory=512)
    second = registered(tmp_path, target=target, memory=512, overwrite=True)
    assert second.files == first.files
    assert all(file.read_text() != text for file, text in zip(second.files, before, strict=True))
