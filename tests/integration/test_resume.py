"""What a second attempt of the same job goes on from, after one that failed, and when it starts over."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.model.results import Finished
from tests.support.attempts import MIB, Attempts

ALL = list(Stage)
AFTER_VERIFY = [Stage.PUBLISH, Stage.REGISTER]


def test_it_goes_on_after_the_last_finished_stage(tmp_path: Path) -> None:
    job = Attempts(tmp_path)
    job.fail_to_publish()
    inode = (job.folder / "disk1.raw").stat().st_ino
    assert job.run() == (AFTER_VERIFY, "")
    assert job.result.read_bytes() == job.source.read_bytes()
    assert job.result.stat().st_ino == inode, "it is the image of the first attempt"
    assert list(job.conversions.iterdir()) == []


def test_a_missing_tool_costs_no_conversion(tmp_path: Path) -> None:
    """Missing from the beginning, or removed after the plan."""
    hidden = Path("/usr/bin/qemu-system-x86_64")
    job = Attempts(tmp_path, verify="boot")

    def hide(stage: Stage) -> None:
        if stage is Stage.PLAN:
            subprocess.run(["mount", "--bind", "/dev/null", hidden], check=True)

    try:
        assert job.run(hide) == (ALL[:4], "tool-missing")
        assert job.run() == ([Stage.VERIFY], "tool-missing")
        assert Attempts(tmp_path, verify="boot").run() == ([Stage.PLAN], "tool-missing")
    finally:
        subprocess.run(["umount", hidden], check=True)


def _touch(job: Attempts) -> None:
    os.utime(job.source)


def _rewrite(job: Attempts) -> None:
    job.source.unlink()
    job.source.write_bytes(os.urandom(4 * MIB))


def _ask_for_more(job: Attempts) -> None:
    asked = job.order.migration.with_changes(verify="content")
    job.order = job.order.with_changes(migration=asked)


def _ask_for_another(job: Attempts) -> None:
    job.order = job.order.with_changes(submitter="root", submitter_uid=0)


def _move_output(job: Attempts) -> None:
    job.out, job.result = job.out.parent / "other", job.out.parent / "other/web01.raw"
    job.order = job.order.with_changes(output_dir=job.out)


def _move_conversions(job: Attempts) -> None:
    job.order = job.order.with_changes(conversion_dir=job.conversions.parent / "elsewhere")


def _lose_image(job: Attempts) -> None:
    (job.folder / "disk1.raw").unlink()


def _lose_purpose(job: Attempts) -> None:
    (job.folder / "purpose").unlink()


@pytest.mark.parametrize(
    "change",
    [
        _touch,
        _rewrite,
        _ask_for_more,
        _ask_for_another,
        _move_output,
        _move_conversions,
        _lose_image,
        _lose_purpose,
    ],
)
def test_it_starts_over(change: Callable[[Attempts], None], tmp_path: Path) -> None:
    job = Attempts(tmp_path)
    job.fail_to_publish()
    change(job)
    assert job.run() == (ALL, "")
    assert job.result.read_bytes() == job.source.read_bytes()


def test_a_source_that_is_gone_is_missed(tmp_path: Path) -> None:
    job = Attempts(tmp_path)
    job.fail_to_publish()
    job.source.unlink()
    assert job.run() == ([Stage.PLAN], "source-missing")


def test_a_run_that_nobody_can_retry_leaves_nothing(tmp_path: Path) -> None:
    job = Attempts(tmp_path)
    job.kept = False
    job.fail_to_publish()
    assert list(job.conversions.iterdir()) == []


def test_a_dry_run_leaves_nothing(tmp_path: Path) -> None:
    job = Attempts(tmp_path, dry_run=True)
    job.source.unlink()
    assert job.run() == ([Stage.PLAN], "source-missing")
    assert not job.conversions.exists()
    assert job.order.finished == Finished()
