"""Two daemons share no directory and no database, and a queue keeps to its spool."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.daemon.locks import LOCK, QUEUE_MARK
from hyper2kvmd.model.jobs import State
from tests.support.ctl import ctl
from tests.support.house import House, until


@pytest.fixture
def other(tmp_path: Path) -> Iterator[House]:
    """A second daemon, with directories of its own."""
    (tmp_path / "other").mkdir()
    other = House(tmp_path / "other")
    yield other
    other.close()


def shared(house: House, key: str) -> dict[str, str]:
    """The setting of a daemon that uses what `key` names of the house."""
    places = {
        "spool_dir": house.spool,
        "state_dir": house.root / "state",
        "conversion_dir": house.conversions,
        "output_dir": house.root / "images",
    }
    database = f"sqlite:///{house.root}/state/jobs.sqlite3"
    return {key: database if key == "database_url" else str(places[key])}


def refusal(other: House) -> str:
    """What a daemon that may not start says at last."""
    assert other.start(ready=False).wait(90) == 78, other.log
    return other.log.splitlines()[-1]


@pytest.mark.parametrize("key", ["spool_dir", "state_dir", "conversion_dir", "output_dir", "database_url"])
def test_a_second_daemon_is_refused_by_name(house: House, other: House, key: str) -> None:
    house.start()
    assert house.process is not None
    other.configure(**shared(house, key))
    said = refusal(other)
    assert said.startswith(f"{key} ") and said.endswith(
        f"Stop that daemon, or give this one another {key}. [already-running]"
    )
    assert f"another hyper2kvmd uses it (process {house.process.pid} on " in said
    assert f"state_dir {house.root / 'state'})" in said
    house.drop("a.yaml", house.migration("a", "plan"))
    house.reaches(1, State.SUCCEEDED)
    house.stop()
    other.configure(**shared(house, key)) if key in ("conversion_dir", "output_dir") else other.configure()
    other.start()


def test_a_daemon_by_another_path_is_refused(house: House, other: House) -> None:
    house.start()
    (other.root / "link").symlink_to(house.root / "images")
    other.configure(output_dir=str(other.root / "link"))
    assert refusal(other).endswith("[already-running]")


def test_an_image_directory_of_one_is_no_conversion_directory_of_another(house: House, other: House) -> None:
    house.start()
    (house.root / "images").chmod(0o700)
    other.configure(conversion_dir=str(house.root / "images"))
    assert refusal(other).endswith("[already-running]")


def test_one_directory_for_two_purposes_of_one_daemon(house: House) -> None:
    house.configure(output_dir=str(house.root / "state" / "x"), conversion_dir=str(house.root / "state" / "y"))
    house.start()
    assert (house.root / "state" / "x" / LOCK).exists() and (house.root / "state" / "y" / LOCK).exists()


def test_a_spool_of_another_queue_is_refused_with_the_remedy(house: House, other: House) -> None:
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", f"wait {house.root}/go"))
    house.reaches(1, State.RUNNING)
    house.stop()
    other.configure(spool_dir=str(house.spool))
    said = refusal(other)
    assert said.startswith(f"spool_dir {house.spool}: it belongs to the queue ") and said.endswith("[queue-foreign]")
    (house.root / "go").touch()
    house.start()
    house.reaches(1, State.SUCCEEDED)
    house.stop()
    (house.spool / QUEUE_MARK).unlink()
    other.start()
    other.stop()
    assert refusal(house).endswith("[queue-foreign]"), "the spool is the other one's now"


def test_a_state_directory_that_is_not_mounted_is_noticed(house: House) -> None:
    house.start()
    house.stop()
    shutil.move(house.root / "state", house.root / "unmounted")
    assert refusal(house).endswith("[queue-foreign]")
    shutil.rmtree(house.root / "state")
    shutil.move(house.root / "unmounted", house.root / "state")
    house.start()


def test_a_database_that_was_moved_away_is_replaced(house: House) -> None:
    house.start()
    house.stop()
    for part in ("jobs.sqlite3", "jobs.sqlite3-journal"):
        (house.root / "state" / part).unlink()
    house.start()
    assert "the database is new: it replaces the lost one of queue" in house.log
    house.stop()
    house.start()


def test_a_removed_lock_is_taken_again(house: House, other: House) -> None:
    house.start()
    (house.root / "images" / LOCK).unlink()
    until(lambda: (house.root / "images" / LOCK).exists(), "the lock is there again")
    other.configure(**shared(house, "output_dir"))
    assert refusal(other).endswith("[already-running]")


def test_a_one_shot_run_works_in_the_directories_of_a_daemon(house: House) -> None:
    house.start()
    (house.root / "web01.raw").write_bytes(bytes(1 << 20))
    asked = {
        "vmdk": str(house.root / "web01.raw"),
        "vm_name": "web01",
        "conversion_dir": str(house.conversions),
        "output_dir": str(house.root / "images"),
        "libvirt_import": False,
    }
    (house.root / "web01.yaml").write_text(json.dumps(asked))
    done = ctl("--config", house.root / "web01.yaml", cwd=house.root)
    assert done.returncode == 0, done.stderr
    assert (house.root / "images" / "web01.qcow2").exists() and house.working_folders() == []
    house.drop("a.yaml", house.migration("a", "plan"))
    house.reaches(1, State.SUCCEEDED)
