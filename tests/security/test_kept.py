"""What a submitter could gain from working folders that are kept: another one's image, or rights that are over."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.model.orders import Bounds
from hyper2kvmd.model.results import Finished
from tests.support.attempts import Attempts
from tests.support.own_host import FOLDER_PREFIX
from tests.support.submitters import NOBODY, VICTIM


@pytest.fixture
def job() -> Iterator[Attempts]:
    """A job of the victim's that failed when its image was ready."""
    root = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/var/tmp"))
    root.chmod(0o755)
    job = Attempts(root)
    job.source.chmod(0o644)
    bounds = Bounds(shared_output_dir=job.out)
    job.order = job.order.with_changes(submitter=VICTIM, submitter_uid=NOBODY, bounds=bounds)
    job.fail_to_publish()
    yield job
    shutil.rmtree(root)


def test_a_right_that_was_withdrawn_meanwhile(job: Attempts) -> None:
    """The image is whole, and published it would be theirs to read."""
    job.source.chmod(0o600)
    assert job.run()[1] == "submitter-may-not-read"
    assert list(job.out.iterdir()) == []


def test_the_folder_of_another_submitter_under_the_same_number(job: Attempts) -> None:
    """The database was lost and the numbers begin again; the attacker chose the name of the victim's machine."""
    victims = (job.folder / "disk1.raw").read_bytes()
    job.source.write_bytes(os.urandom(len(victims)))
    job.order = job.order.with_changes(submitter="root", submitter_uid=0, finished=Finished())
    assert job.run()[1] == ""
    assert job.result.read_bytes() == job.source.read_bytes() != victims


def test_the_finished_stages_of_another_submitter_under_the_same_number(job: Attempts) -> None:
    """Even if the record of the stages were mixed up, the folder says whose it is."""
    victims = (job.folder / "disk1.raw").read_bytes()
    theirs = job.source.with_name("theirs.raw")
    theirs.write_bytes(os.urandom(len(victims)))
    asked = job.order.migration.with_changes(vmdk=theirs)
    job.order = job.order.with_changes(submitter="root", submitter_uid=0, migration=asked)
    assert job.run()[1] == ""
    assert job.result.read_bytes() == theirs.read_bytes()


def test_an_image_that_has_the_name_of_what_was_published(job: Attempts) -> None:
    """The operator removed the first image before the retry, and another submitter's has its name now."""
    assert job.run()[1] == ""
    job.order = job.order.with_changes(finished=job.order.finished.with_changes(registration=None))
    assert job.run() == ([Stage.REGISTER], "")
    job.order = job.order.with_changes(finished=job.order.finished.with_changes(registration=None))
    job.result.with_name("victims").write_bytes(b"the victim's")
    job.result.with_name("victims").rename(job.result)
    started, code = job.run()
    assert Stage.REGISTER not in started and code == "output-exists"
