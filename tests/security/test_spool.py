"""Files in the spool that are no plain YAML of their owner's: rejected by name, read by nobody else's right."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hyper2kvmd.daemon.folders import prepare
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.spool import Spool
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import JobFilter, State
from tests.support.house import House


def a_symlink(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_second_name(path: Path) -> None:
    other = path.parent.parent / "other"
    other.write_text("vmdk: /a.vmdk\n")
    path.hardlink_to(other)


def too_much(path: Path) -> None:
    path.write_text("# " + "x" * 65536)


def latin(path: Path) -> None:
    path.write_bytes(b"vm_name: caf\xe9\n")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (a_symlink, "spool-not-a-file"),
        (a_pipe, "spool-not-a-file"),
        (a_second_name, "spool-hard-linked"),
        (too_much, "spool-too-large"),
        (latin, "spool-not-utf8"),
    ],
)
def test_what_is_no_plain_small_file_of_its_own_is_rejected(
    house: House, make: Callable[[Path], None], code: str
) -> None:
    (house.spool / "incoming").mkdir(parents=True)
    make(house.spool / "incoming" / "odd.yaml")
    house.start()
    assert [problem.code for problem in house.rejection("odd.yaml").problems] == [code]
    assert house.job(1).state is State.REJECTED


@pytest.mark.usefixtures("settles_at_once")
def test_a_file_swapped_for_a_link_is_never_followed(tmp_path: Path) -> None:
    """Now a YAML, now a link to somebody else's, at any moment: nothing is said of what that holds."""
    secret, odd, draft = tmp_path / "secret", tmp_path / "incoming/odd.yaml", tmp_path / "draft"
    prepare(tmp_path)
    secret.write_text("the-secret-key: 1\n")
    store, over = Store(f"sqlite:///{tmp_path}/jobs.sqlite3"), threading.Event()

    def swap() -> None:
        for count in itertools.count():
            draft.symlink_to(secret)
            draft.rename(odd)
            time.sleep(count * 7 % 40 / 1000)
            draft.write_text(f"vmdk: /a.vmdk\nmemory: {64 + count}\n")
            draft.rename(odd)
            time.sleep(count * 11 % 40 / 1000)
            if over.is_set():
                return

    swapper, spool = threading.Thread(target=swap), Spool(tmp_path, store, Metrics())
    swapper.start()
    try:
        while store.overview()[0].rejected < 20 or store.overview()[0].queued < 5:
            spool.scan()
            time.sleep(0.005)
    finally:
        over.set()
        swapper.join()
    said = {problem.code for job in store.list(JobFilter(states=(State.REJECTED,))) for problem in job.problems}
    store.close()
    assert said == {"spool-not-a-file"}
