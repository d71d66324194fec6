"""Publishing on real file systems: one, two, and a full one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from hyper2kvmd.errors import Interrupted, MigrationFailed
from hyper2kvmd.host.workspace import PLACING
from hyper2kvmd.progress import Event, Progress
from tests.support.disks import empty_disk, sh
from tests.support.file_systems import file_system
from tests.support.publishing import MIB, names, run_publish, sparse_image


def test_all_results_get_the_group_of_a_setgid_directory(tmp_path: Path) -> None:
    """A linked image as well, where this process may set it."""
    output, image = tmp_path / "out", sparse_image(tmp_path)
    output.mkdir()
    shutil.chown(output, group="games")
    output.chmod(0o2770)
    run_publish(image, output, checksum=True)
    assert {path.group() for path in output.iterdir()} == {"games"}


def test_on_one_file_system_no_byte_is_copied(tmp_path: Path) -> None:
    image = sparse_image(tmp_path)
    output = tmp_path / "out"
    output.mkdir()
    artifact = run_publish(image, output)
    assert artifact.disks[0].path.samefile(image)
    assert names(output) == {"web01.raw", "web01.report.json", "web01.report.md"}


def test_all_disks_are_published_or_none(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    image, second = sparse_image(tmp_path), sparse_image(tmp_path / "second")
    output = tmp_path / "out"
    output.mkdir()
    (output / "web01-disk2.raw").write_text("somebody's")
    with pytest.raises(MigrationFailed) as caught:
        run_publish((image, second), output)
    assert caught.value.code == "output-exists"
    assert names(output) == {"web01-disk2.raw"}
    (output / "web01-disk2.raw").unlink()
    artifact = run_publish((image, second), output, checksum=True)
    assert [disk.path.name for disk in artifact.disks] == ["web01.raw", "web01-disk2.raw"]
    assert artifact.disks[1].path.samefile(second)
    assert {"web01.raw.sha256", "web01-disk2.raw.sha256"} < names(output)


def test_onto_another_file_system_holes_stay_holes(tmp_path: Path) -> None:
    image = sparse_image(tmp_path)
    with file_system(tmp_path, 200) as output:
        artifact = run_publish(image, output, checksum=True)
        assert artifact.disks[0].path.read_bytes() == image.read_bytes()
        assert artifact.disks[0].file_bytes < 8 * MIB
        assert names(output) == {"web01.raw", "web01.raw.sha256", "web01.report.json", "web01.report.md"}
        assert f"{artifact.disks[0].sha256}  web01.raw\n" == (output / "web01.raw.sha256").read_text()
        assert sh("sha256sum", artifact.disks[0].path).split()[0] == artifact.disks[0].sha256


def test_a_reserved_image_stays_reserved_on_another_file_system(tmp_path: Path) -> None:
    image = sparse_image(tmp_path)
    with file_system(tmp_path, 200) as output:
        artifact = run_publish(image, output, reserve=True)
        assert artifact.disks[0].file_bytes >= 64 * MIB
        assert artifact.disks[0].path.read_bytes() == image.read_bytes()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    image = sparse_image(tmp_path)
    output = tmp_path / "out"
    output.mkdir()
    (output / "web01.raw").write_text("somebody's")
    with pytest.raises(MigrationFailed) as caught:
        run_publish(image, output)
    assert caught.value.code == "output-exists"
    assert (output / "web01.raw").read_text() == "somebody's"
    assert names(output) == {"web01.raw"}


def test_a_second_attempt_recognises_its_own_work(tmp_path: Path) -> None:
    image = sparse_image(tmp_path)
    output = tmp_path / "out"
    output.mkdir()
    run_publish(image, output)
    assert run_publish(image, output).disks[0].path.samefile(image)


def test_what_an_attempt_of_another_version_noted_is_published_again(tmp_path: Path) -> None:
    """The daemon was upgraded between two attempts."""
    image, output = sparse_image(tmp_path), tmp_path / "out"
    run_publish(image, output)
    published, note = names(output), tmp_path / PLACING
    noted = json.loads(note.read_text())
    noted["product"] = json.dumps(json.loads(noted["product"]) | {"of_another_version": 1})
    note.write_text(json.dumps(noted))
    assert run_publish(image, output).disks[0].path.samefile(image)
    assert names(output) == published


def test_a_full_output_leaves_nothing_behind(tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(os.urandom(64 * MIB))
    with file_system(tmp_path, 32) as output:
        with pytest.raises(MigrationFailed) as caught:
            run_publish(image, output)
        assert caught.value.code == "disk-full"
        assert names(output) == set()


def test_reports_of_another_migration_are_not_overwritten(tmp_path: Path) -> None:
    """Two YAMLs may name one VM and two images: the later one leaves neither its image nor its reports."""
    image = sparse_image(tmp_path)
    output = tmp_path / "out"
    output.mkdir()
    (output / "web01.report.md").write_text("somebody's")
    with pytest.raises(MigrationFailed) as caught:
        run_publish(image, output, checksum=True)
    assert caught.value.code == "output-exists"
    assert (output / "web01.report.md").read_text() == "somebody's"
    assert names(output) == {"web01.report.md"}


def test_the_same_bytes_of_another_job_are_not_ours(tmp_path: Path) -> None:
    """Two domains must never share one image because their disks happened to be alike."""
    first, second, output = tmp_path / "first", tmp_path / "second", tmp_path / "out"
    for folder in (first, second, output):
        folder.mkdir()
    image = sparse_image(first)
    twin = second / "disk.raw"
    twin.write_bytes(image.read_bytes())
    run_publish(image, output)
    with pytest.raises(MigrationFailed) as caught:
        run_publish(twin, output)
    assert caught.value.code == "output-exists"
    assert (output / "web01.raw").samefile(image)


def test_a_stop_during_the_checksum_leaves_nothing(tmp_path: Path) -> None:
    image = sparse_image(tmp_path)
    output = tmp_path / "out"
    output.mkdir()

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.title == "Computing the checksum of web01.raw":
            raise Interrupted("interrupted", "stopped", hint="start again")

    with pytest.raises(Interrupted):
        run_publish(image, output, checksum=True, emit=stop)
    assert names(output) == set()
    run_publish(image, output, checksum=True)
    assert "web01.raw.sha256" in names(output)


def test_a_copy_that_was_killed_after_it_got_its_name_is_taken_back(tmp_path: Path) -> None:
    image = sparse_image(tmp_path)
    with file_system(tmp_path, 300) as output:
        child = os.fork()
        if child == 0:
            run_publish(image, output)
            os._exit(0)
        os.waitpid(child, 0)
        published = names(output)
        (output / ".web01.raw.7.partial").write_text("half")
        run_publish(image, output)
        assert names(output) == published
        assert (output / "web01.raw").read_bytes() == image.read_bytes()


def test_what_another_host_publishes_under_the_same_number_is_left_alone(tmp_path: Path) -> None:
    """Job numbers are those of one queue, and an output directory may be shared by several."""
    image = sparse_image(tmp_path)
    output = tmp_path / "out"
    output.mkdir()
    theirs = {f".web02.{ending}.7.partial" for ending in ("raw", "raw.sha256", "report.json", "xml")}
    ours = {f".web01.{ending}.7.partial" for ending in ("raw", "raw.sha256", "report.json", "xml")}
    for name in theirs | ours:
        (output / name).write_text("half")
    run_publish(image, output)
    assert {name for name in names(output) if name.endswith(".partial")} == theirs


def test_an_output_full_of_inodes_is_said_as_such(tmp_path: Path) -> None:
    image = empty_disk(tmp_path / "disk.raw", 1)
    with file_system(tmp_path, 32) as output:
        for number in range(100_000):
            try:
                (output / f"{number}").touch()
            except OSError:
                break
        before = names(output)
        (output / "0").unlink()
        with pytest.raises(MigrationFailed) as caught:
            run_publish(image, output)
        assert caught.value.code == "disk-full"
        assert names(output) == before - {"0"}
