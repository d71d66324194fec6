"""Hidden files that killed jobs leave in an output directory: who removes them, and which are left alone."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hyper2kvmd import config
from hyper2kvmd.cli.cleanup import collect
from hyper2kvmd.daemon.locks import LOCK
from hyper2kvmd.errors import TryLater
from hyper2kvmd.host.leftovers import tidy_directory
from hyper2kvmd.host.placed import DRAFT
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import State
from hyper2kvmd.model.orders import Order, SpaceNeeded
from hyper2kvmd.progress import Context, Event, StepStarted
from hyper2kvmd.worker import migrate
from tests.support.disks import empty_disk
from tests.support.house import House, until
from tests.support.publishing import names, run_publish, sparse_image

RESULTS = {"web01.raw", "web01.raw.sha256", "web01.report.json", "web01.report.md"}
DRAFTS = {".web01.raw.7.partial"}


def publish(root: Path, output: Path, **keys: object) -> None:
    folder = root / f"images{len(list(root.iterdir()))}"
    folder.mkdir()
    run_publish(sparse_image(folder), output, checksum=True, **keys)  # type: ignore[arg-type]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A directory in which a job was killed when it had its first draft."""
    output = tmp_path / "out"
    killed(tmp_path, output)
    return output


def killed(root: Path, output: Path, **keys: object) -> None:
    def die(event: Event) -> None:
        if isinstance(event, StepStarted) and event.title.startswith("Computing the checksum"):
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        publish(root, output, emit=die, **keys)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert names(output) >= DRAFTS


def test_the_next_job_of_the_submitter_removes_them(output: Path) -> None:
    publish(output.parent, output, vm_name="web02")
    assert names(output) == {name.replace("web01", "web02") for name in RESULTS}


def test_a_job_of_another_submitter_leaves_them(output: Path) -> None:
    publish(output.parent, output, vm_name="web02", submitter_uid=1000)
    assert names(output) > DRAFTS


def test_the_draft_of_a_running_job_is_left(output: Path) -> None:
    """It holds a lock on its draft; others may place files at the same time."""
    image = sparse_image(output.parent)
    seen: list[set[str]] = []

    def look(event: Event) -> None:
        if isinstance(event, StepStarted) and event.title.startswith("Computing the checksum"):
            tidy_directory(output, os.geteuid())
            seen.append(names(output))

    run_publish(image, output, checksum=True, emit=look)
    assert seen == [DRAFTS]
    assert names(output) == RESULTS


def unmarked(path: Path) -> None:
    os.removexattr(path, DRAFT)


def given_away(path: Path) -> None:
    os.chown(path, 65534, 65534)


def renamed(path: Path) -> None:
    path.rename(path.with_name(".web01.raw.partial"))


def linked(path: Path) -> None:
    path.rename(path.with_name("kept"))
    path.symlink_to("kept")


@pytest.mark.parametrize("change", [unmarked, given_away, renamed, linked])
def test_a_hidden_file_that_is_no_draft_of_ours_is_left(output: Path, change: Callable[[Path], None]) -> None:
    change(output / ".web01.raw.7.partial")
    before = names(output)
    assert tidy_directory(output, os.geteuid()) == ()
    assert names(output) == before


def test_nothing_is_done_while_a_job_gives_files_their_names(output: Path) -> None:
    placing = os.open(output, os.O_RDONLY)
    fcntl.flock(placing, fcntl.LOCK_SH)
    assert tidy_directory(output, os.geteuid()) == ()
    os.close(placing)
    assert tidy_directory(output, os.geteuid()) == (output / ".web01.raw.7.partial",)
    assert names(output) == set()


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    """A directory with results that a killed job has set aside."""
    output = tmp_path / "out"
    publish(tmp_path, output)
    for name in ("web01.raw", "web01.report.md"):
        (output / name).rename(output / f".{name}.8.replaced")
    return output


def test_files_that_were_set_aside_get_their_names_back(aside: Path) -> None:
    before = names(aside)
    assert len(tidy_directory(aside, os.geteuid(), dry_run=True)) == 2
    assert names(aside) == before
    assert len(tidy_directory(aside, os.geteuid())) == 2
    assert names(aside) == RESULTS


def test_those_with_successors_or_changes_are_left(aside: Path) -> None:
    (aside / "web01.raw").write_text("a successor")
    os.utime(aside / ".web01.report.md.8.replaced", ns=(0, 0))
    before = names(aside)
    assert tidy_directory(aside, os.geteuid()) == ()
    assert names(aside) == before
    assert (aside / "web01.raw").read_text() == "a successor"


def test_a_job_for_another_machine_brings_them_back(aside: Path) -> None:
    publish(aside.parent, aside, vm_name="web02")
    assert names(aside) == RESULTS | {name.replace("web01", "web02") for name in RESULTS}


def test_gc_cleans_up_the_configured_directory(output: Path, tmp_path: Path) -> None:
    (tmp_path / "house/state").mkdir(parents=True)
    loaded = config.load(House(tmp_path / "house").configure(output_dir=str(output)))
    Store(loaded.database_url).close()
    draft = (output / ".web01.raw.7.partial",)
    assert collect(loaded, dry_run=True).output_files == draft
    assert names(output) == DRAFTS
    assert collect(loaded, dry_run=False).output_files == draft
    assert names(output) == set()


def test_the_daemon_cleans_up_when_it_starts(output: Path, tmp_path: Path) -> None:
    (tmp_path / "house").mkdir()
    house = House(tmp_path / "house")
    house.configure(output_dir=str(output))
    house.start()
    assert names(output) == {LOCK}
    assert ".web01.raw.7.partial, which a killed job had left" in house.log
    house.close()


def test_a_link_of_root_to_the_directory_is_followed_and_one_of_others_is_not(output: Path) -> None:
    link = output.parent / "link"
    link.symlink_to(output)
    os.chown(link, 65534, 65534, follow_symlinks=False)
    assert tidy_directory(link, os.geteuid()) == ()
    os.chown(link, 0, 0, follow_symlinks=False)
    assert tidy_directory(link, os.geteuid()) == (link / ".web01.raw.7.partial",)


def test_a_file_whose_name_cannot_be_given_back_leaves_the_others(aside: Path) -> None:
    stuck = aside / ".web01.raw.8.replaced"
    subprocess.run(["chattr", "+i", stuck], check=True)
    try:
        assert tidy_directory(aside, os.geteuid()) == (aside / ".web01.report.md.8.replaced",)
    finally:
        subprocess.run(["chattr", "-i", stuck], check=True)


def planted(directory: Path, name: str, submitter_uid: int) -> Path:
    """A draft as a killed job leaves it."""
    path = directory / name
    path.write_text("x")
    os.setxattr(path, DRAFT, str(submitter_uid).encode())
    return path


def test_the_daemon_tidies_directories_of_jobs_that_ended_in_publish(tmp_path: Path) -> None:
    """Also of jobs that ended before its start, and in a process of its own: the directory may not respond."""
    house = House(tmp_path)
    house.configure()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    house.start()
    words = ("plan", "convert", "start publish", "fail permanent")
    house.drop("a.yaml", house.migration("web01", *words, output_dir=str(theirs)))
    job = house.reaches(1, State.FAILED)
    house.close()
    drafts = [planted(theirs, name, job.submitter_uid) for name in (".web01.qcow2.1.partial", ".web02.raw.7.partial")]
    other = planted(theirs, ".web03.raw.8.partial", job.submitter_uid + 1)
    loaded = config.load(tmp_path / "hyper2kvmd.yaml")
    assert {*collect(loaded, dry_run=True).output_files} == {*drafts}
    house.start()
    until(lambda: not any(path.exists() for path in drafts), "the drafts are gone")
    until(
        lambda: 'hyper2kvm_leftovers_cleared_total{kind="draft"} 2.0' in house.browse("/metrics")[1], "they are counted"
    )
    assert other.exists()
    house.close()


def test_the_folder_of_a_job_that_has_succeeded_goes_when_the_daemon_starts(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.configure()
    house.start()
    house.drop("a.yaml", house.migration("web01", "plan", "convert", "publish"))
    job = house.reaches(1, State.SUCCEEDED)
    house.close()
    left, unknown = house.conversions / f"web01.{job.id}", house.conversions / "web02.900"
    for folder in (left, unknown):
        folder.mkdir()
        (folder / "disk1.qcow2").write_text("x")
    house.start()
    assert not left.exists()
    assert unknown.exists()
    house.close()


def test_an_attempt_removes_its_own_drafts_before_it_asks_for_space(output: Path) -> None:
    """On a file system without extended attributes they have no mark: the number of the job counts."""
    unmarked(output / ".web01.raw.7.partial")
    theirs = output / ".web01.raw.8.partial"
    theirs.write_text("another job's")
    asked: list[set[str]] = []

    def admit(_needed: SpaceNeeded) -> None:
        asked.append(names(output))
        raise TryLater("space-short", "there is no space", hint="Wait")

    disk = empty_disk(output.parent / "disk.raw", 1)
    order = Order(
        job_id="7",
        attempt=2,
        migration=Migration(vm_name="web01", vmdk=(disk,), out_format="raw", guest="none"),
        conversion_dir=output.parent / "conversions",
        output_dir=output,
        helper=("false",),
    )
    with pytest.raises(TryLater):
        migrate(order, Context(lambda _: None, admit))
    assert asked == [{theirs.name}]


def test_the_daemon_asks_the_helper_when_it_starts(tmp_path: Path) -> None:
    """The helper removes devices of killed helpers then (tests/system/inside.py)."""
    helper = tmp_path / "helper"
    helper.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
    helper.chmod(0o755)
    house = House(tmp_path)
    house.configure(helper=[str(helper)])
    house.start()
    until((tmp_path / "asked").exists, "the helper was asked")
    house.close()
