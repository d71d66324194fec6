"""`h2kvmctl database` and the backups of the daemon, with a real daemon."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hyper2kvmd.jobs.backups import BEFORE_STEPS, DAILY, Backups
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import State
from tests.support.house import House, until

H2KVMCTL = Path(sys.executable).with_name("h2kvmctl")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    house.configure()
    yield house
    house.close()


def ctl(house: House, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(H2KVMCTL), "database", *words, "--config", str(house.root / "hyper2kvmd.yaml")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def database(house: House) -> Path:
    return house.root / "state" / "jobs.sqlite3"


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 8192)


def state_of(house: House, name: str) -> list[State]:
    return [job.state for job in house.jobs() if job.vm_name == name]


def test_check_and_backup_beside_a_running_daemon(house: House) -> None:
    house.start()
    folder = house.root / "state" / "backups"
    until(lambda: list(folder.glob("*.daily")), "the first daily backup")
    done = ctl(house, "backup")
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.manual")
    assert made.stat().st_mode & 0o077 == 0
    found = ctl(house, "check")
    assert found.returncode == 0 and "no damage" in found.stdout and str(made) in found.stdout, found
    refused = ctl(house, "restore")
    assert refused.returncode == 75 and "[daemon-running]" in refused.stderr
    assert "systemctl stop hyper2kvmd" in refused.stderr and "h2kvmctl database restore --config" in refused.stderr
    assert ctl(house, "rebuild").returncode == 75
    assert house.status().state == "running"
    house.stop()


def test_a_damaged_database_is_refused_with_the_commands_that_restore_it(house: House) -> None:
    hold = house.root / "hold"
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", "convert", "publish"))
    house.drop("b.yaml", house.migration("b", "plan", f"wait {hold}", "convert", "publish"))
    until(lambda: state_of(house, "a") == [State.SUCCEEDED] and state_of(house, "b") == [State.RUNNING], "b runs")
    assert ctl(house, "backup").returncode == 0
    hold.touch()
    house.drop("c.yaml", house.migration("c", "plan", "convert", "publish"))
    until(lambda: state_of(house, "b") == state_of(house, "c") == [State.SUCCEEDED], "all succeed")
    until(lambda: len(list((house.spool / "done").glob("*.yaml"))) == 3, "all files are put away")
    newest = max(job.id for job in house.jobs())
    house.stop()
    damage(database(house))

    found = ctl(house, "check")
    assert found.returncode == 78 and "[database-corrupt]" in found.stderr
    house.start(ready=False)
    assert house.process is not None and house.process.wait(90) == 78
    for command in ("systemctl stop hyper2kvmd", "h2kvmctl database restore", "h2kvmctl database rebuild"):
        assert command in house.log

    restored = ctl(house, "restore")
    assert restored.returncode == 0, restored.stderr
    house.start()
    assert state_of(house, "a") == state_of(house, "b") == [State.SUCCEEDED] and state_of(house, "c") == []
    attempts = {job.vm_name: job.attempt for job in house.jobs()}
    assert attempts == {"a": 1, "b": 1}
    house.drop("d.yaml", house.migration("d", "plan", "convert", "publish"))
    until(lambda: state_of(house, "d") == [State.SUCCEEDED], "a new job runs")
    assert max(job.id for job in house.jobs()) > newest
    assert len(list(database(house).parent.glob("jobs.sqlite3.replaced-*Z"))) == 1
    house.stop()


def test_a_lost_database_is_rebuilt_from_active(house: House) -> None:
    hold = house.root / "hold"
    house.start()
    house.drop("a.yaml", house.migration("a", "plan", f"wait {hold}", "convert", "publish"))
    until(lambda: state_of(house, "a") == [State.RUNNING], "a runs")
    house.stop()
    database(house).unlink()
    for backup in (house.root / "state" / "backups").glob("*"):
        backup.unlink()
    for verb in ("check", "backup"):
        said = ctl(house, verb)
        assert said.returncode == 78 and "it does not exist" in said.stderr, said
        assert "h2kvmctl database restore`" in said.stderr and "h2kvmctl database rebuild`" in said.stderr
    missing = ctl(house, "restore")
    assert missing.returncode == 1 and "h2kvmctl database rebuild" in missing.stderr
    rebuilt = ctl(house, "rebuild")
    assert rebuilt.returncode == 0 and "1 files in" in rebuilt.stdout, rebuilt
    hold.touch()
    house.start()
    until(lambda: state_of(house, "a") == [State.SUCCEEDED], "a runs again")
    until(lambda: (house.spool / "done" / "a.yaml").exists(), "its file is put away")
    house.stop()


def test_a_job_without_a_file_that_was_active_is_held(house: House) -> None:
    store = Store(f"sqlite:///{database(house)}")
    migration = Migration(vm_name="a", vmdk=(Path("/a.vmdk"),))
    store.submit(migration, content_key="a", origin=Origin(submitter="root", uid=0))
    store.claim(datetime.now(UTC))
    store.close()
    assert ctl(house, "backup").returncode == 0
    damage(database(house))
    assert ctl(house, "restore").returncode == 0
    store = Store(f"sqlite:///{database(house)}")
    held = store.get(1)
    store.close()
    assert held.state is State.HELD and "backup" in held.note


def test_the_newest_backups_of_each_kind_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    Store(f"sqlite:///{path}").close()
    backups = Backups.of(path, tmp_path / "elsewhere", keep=2)
    backups.folder.mkdir()
    assert backups.due()
    times = [datetime.now(UTC) - timedelta(days=age) for age in (5, 4, 3, 2)]
    for kind in (DAILY, BEFORE_STEPS):
        for moment in times:
            (backups.folder / f"jobs.sqlite3.{moment:%Y%m%dT%H%M%SZ}.{kind}").touch()
    (backups.folder / "notes").touch()
    assert backups.due()
    made = backups.make(DAILY)
    assert not backups.due()
    kinds = [one.kind for one in backups.found()]
    assert kinds.count(DAILY) == 2 and kinds.count(BEFORE_STEPS) == 4 and backups.found()[0].path == made
    assert (backups.folder / "notes").exists()
    with closing(sqlite3.connect(made)) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_a_damaged_database_does_not_become_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    Store(f"sqlite:///{path}").close()
    damage(path)
    backups = Backups.of(path, None, keep=2)
    with pytest.raises(Exception, match="damaged") as refusal:
        backups.make(DAILY)
    assert getattr(refusal.value, "code", "") == "database-corrupt"
    assert backups.found() == [] and list(backups.folder.iterdir()) == []
