"""`h2kvmctl gc` with a real queue: what it takes, and all that it must leave alone."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd import config
from hyper2kvmd.cli.cleanup import LOCK, Removed, collect
from hyper2kvmd.cli.cleanup_clock import NOTE, SETTLING_SECONDS, Reading, read_clocks
from hyper2kvmd.errors import MigrationFailed, TryLater
from hyper2kvmd.host import quarantine
from hyper2kvmd.host.workspace import follow_links, working_folder
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Job, Stage
from hyper2kvmd.model.results import Finished
from tests.support.benches import NOTHING_PLANNED

PROJECT = Path(__file__).parents[2]
LONG_AGO = time.time() - 40 * 86_400


class Host:
    """Directories as the daemon keeps them, its configuration and its database."""

    def __init__(self, root: Path) -> None:
        self.root, self.config = root, root / "hyper2kvmd.yaml"
        self.conversions, self.spool = root / "conversions", root / "spool"
        self.database = root / "state/jobs.sqlite3"
        self.conversions.mkdir(mode=0o700)
        for name in ("incoming", "active", "done", "failed", "rejected"):
            (self.spool / name).mkdir(parents=True)
        self.retention(conversions=1, spool=30, jobs=365)
        self.store = Store(f"sqlite:///{self.database}")

    def retention(self, *, conversions: float, spool: float, jobs: float) -> None:
        kept = f"{{conversions: {conversions}, spool: {spool:.6f}, jobs: {jobs}}}"
        folders = f"state_dir: {self.root}/state\nconversion_dir: {self.conversions}\nspool_dir: {self.spool}\n"
        self.config.write_text(f"{folders}retention: {kept}\n")

    def submit(self, name: str) -> Job:
        migration = Migration(vmdk=(Path(f"/{name}.vmdk"),), vm_name=name)
        return self.store.submit(migration, content_key=name, origin=Origin(submitter="test")).job

    def ended(self, name: str) -> Job:
        job = self.submit(name)
        return self.store.cancel(job.id, "test")

    def let_end_long_ago(self) -> None:
        """All jobs that are over."""
        with sqlite3.connect(self.database) as connection:
            connection.execute(
                "update jobs set finished = ? where finished is not null",
                (f"{datetime.fromtimestamp(LONG_AGO, UTC):%Y-%m-%d %H:%M:%S.%f}",),
            )
        connection.close()

    def folder(self, name: str, *, age_days: float = 40) -> Path:
        path = self.conversions / name
        path.mkdir(mode=0o700)
        (path / "disk.qcow2").write_bytes(b"x")
        then = time.time() - age_days * 86_400
        os.utime(path, (then, then))
        return path

    def gc(self, *arguments: str) -> tuple[int, Any, str]:
        command = [sys.executable, "-m", "hyper2kvmd.cli.ctl", "gc", "--json", "--config", str(self.config), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=60, check=False)
        return result.returncode, json.loads(result.stdout), result.stderr

    def collect(self, *, dry_run: bool = False) -> Removed:
        """The same in this process."""
        return collect(config.load(self.config), dry_run=dry_run)

    def left(self) -> set[str]:
        return {path.name for path in self.conversions.iterdir()}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_only_abandoned_working_folders_go(host: Host) -> None:
    live, dead, fresh, held_job = (host.ended(name) for name in ("live", "dead", "fresh", "held"))
    host.store.retry(live.id, "test")
    host.folder(f"live.{live.id}")
    host.folder(f"dead.{dead.id}")
    host.folder("oneshot.20260101T000000Z-77")
    host.folder(f"fresh.{fresh.id}", age_days=0.5)
    host.folder("lost+found")
    host.folder("my.images")
    held = host.folder(f"held.{held_job.id}")
    outside = host.root / "elsewhere"
    outside.mkdir()
    (host.conversions / f"link.{dead.id + 103}").symlink_to(outside)
    handle = os.open(held, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert host.gc()[1]["folders"] == [str(host.conversions / "oneshot.20260101T000000Z-77")]

    host.let_end_long_ago()
    host.folder("oneshot.20260101T000000Z-78")
    expected = {f"dead.{dead.id}", "oneshot.20260101T000000Z-78"}
    before = host.left()
    code, dry, _ = host.gc("--dry-run")
    assert (code, {Path(path).name for path in dry["folders"]}) == (0, expected)
    assert host.left() == before

    code, removed, _ = host.gc()
    assert (code, removed["folders"]) == (0, dry["folders"])
    assert host.left() == before - expected
    assert outside.is_dir()
    os.close(handle)


@pytest.mark.parametrize("attributes", [True, False])
def test_a_folder_that_no_job_knows_stays_for_a_day(host: Host, attributes: bool) -> None:
    """Its job may come back with a restored database, or its number may be another job's now."""
    job = host.ended("web01")
    host.let_end_long_ago()
    folders = tuple(host.folder(name) for name in (f"other.{job.id}", "unknown.900"))
    if not attributes:
        for folder in folders:
            marked_by_file(folder)
    for dry_run in (True, False, False):
        removed = host.collect(dry_run=dry_run)
        assert (removed.folders, removed.quarantined) == ((), folders)
    for folder in folders:
        let_quarantine_begin_earlier(folder)
    assert host.collect(dry_run=True).folders == folders
    assert host.collect().folders == folders
    assert host.left() == set()


def test_a_folder_whose_job_comes_back_is_in_quarantine_no_more(host: Host) -> None:
    folder = host.folder("web01.1")
    assert host.collect().quarantined == (folder,)
    assert host.ended("web01").id == 1
    assert host.collect() == Removed()
    assert mark_of(folder) is None


def test_a_worker_that_continues_in_a_folder_ends_its_quarantine(host: Host) -> None:
    folder = host.folder("web01.900")
    assert host.collect().quarantined == (folder,)
    assert mark_of(folder) is not None
    with pytest.raises(RuntimeError), working_folder(host.conversions, "web01", "900", keep_on_failure=True):
        raise RuntimeError
    assert mark_of(folder) is None


@pytest.mark.root
@pytest.mark.parametrize("kind", ["another file system", "a bind mount"])
def test_nothing_of_a_folder_with_a_mount_in_it_goes(host: Host, kind: str) -> None:
    folder, outside = host.folder("oneshot.20260101T000000Z-77"), host.root / "elsewhere"
    inner = folder / "deep/mounted"
    for path in (inner, outside):
        path.mkdir(parents=True)
    os.utime(folder, (LONG_AGO, LONG_AGO))
    how = ["-t", "tmpfs", "tmpfs"] if kind == "another file system" else ["--bind", str(outside)]
    subprocess.run(["mount", *how, inner], check=True)
    try:
        (inner / "precious").write_text("x")
        removed = host.collect()
        assert (inner / "precious").exists()
        assert (folder / "disk.qcow2").exists()
    finally:
        subprocess.run(["umount", inner], check=True)
    assert (removed.folders, [one.code for one in removed.problems]) == ((), ["leftover-not-removed"])
    assert "is mounted on" in removed.problems[0].message
    assert host.collect().folders == (folder,)


def test_two_clean_ups_do_not_run_at_once(host: Host) -> None:
    folder = host.folder("oneshot.20260101T000000Z-77")
    host.collect(dry_run=True)
    handle = os.open(host.database.parent / LOCK, os.O_RDONLY)
    assert os.fstat(handle).st_mode & 0o777 == 0o600, "others could hold it"
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(TryLater) as caught:
        host.collect()
    assert caught.value.code == "cleanup-running"
    os.close(handle)
    assert host.collect().folders == (folder,)


def test_after_a_jump_of_the_clock_nothing_goes_for_half_a_day(host: Host) -> None:
    """The note of the last clean-up is as one from before the jump."""
    folder, note = host.folder("oneshot.20260101T000000Z-77"), host.database.parent / NOTE
    host.ended("web01")
    assert host.collect(dry_run=True).folders == (folder,)
    assert not note.exists()
    now = read_clocks()
    note.write_text(json.dumps(asdict(replace(now, wall=now.wall - 10 * 365 * 86_400))))
    host.retention(conversions=1, spool=0, jobs=0)
    for dry_run in (True, False, False, True):
        with pytest.raises(TryLater) as caught:
            host.collect(dry_run=dry_run)
        assert caught.value.code == "clock-doubtful"
    assert host.left() == {folder.name}
    assert len(host.store.list()) == 1

    doubted = Reading(**json.loads(note.read_text()))
    note.write_text(json.dumps(asdict(replace(doubted, doubted_since=doubted.wall - SETTLING_SECONDS - 60))))
    assert host.collect().folders == (folder,)


def test_the_folder_of_a_failed_job_goes_by_retention_and_the_job_says_so(host: Host) -> None:
    failed = host.submit("failed")
    claimed = host.store.claim(datetime.now(UTC))
    assert claimed is not None
    host.store.start_stage(failed.id, claimed.attempt, Stage.PLAN)
    host.store.finish_stage(failed.id, claimed.attempt, Stage.PLAN, 1.0, NOTHING_PLANNED)
    host.store.fail(failed.id, claimed.attempt, (), keep_stages=True, note="kept")
    retried = host.submit("retried")
    host.store.cancel(retried.id, "test")
    host.store.retry(retried.id, "test")
    host.let_end_long_ago()
    host.folder(f"retried.{retried.id}")
    host.folder(f"failed.{failed.id}", age_days=0.5)
    assert host.gc()[1]["folders"] == []
    assert host.store.get(failed.id).note == "kept"
    assert host.store.finished_stages(failed.id) == Finished(plan=NOTHING_PLANNED)

    os.utime(host.conversions / f"failed.{failed.id}", (LONG_AGO, LONG_AGO))
    assert [Path(path).name for path in host.gc()[1]["folders"]] == [f"failed.{failed.id}"]
    assert host.left() == {f"retried.{retried.id}"}
    assert host.store.get(failed.id).note == "working folder removed: its retention time is over"
    assert host.store.finished_stages(failed.id) == Finished()


def test_without_a_database_nothing_goes(host: Host) -> None:
    host.folder("dead.100")
    (host.spool / "done/a.yaml").write_text("x")
    host.retention(conversions=0, spool=0, jobs=0)
    host.store.close()
    host.database.unlink()
    code, answer, line = host.gc()
    assert (code, answer["error"]["code"]) == (78, "database-missing")
    assert len(line.splitlines()) == 1
    assert not host.database.exists()

    host.database.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
    assert host.gc()[0] == 78
    assert host.left() == {"dead.100"}
    assert (host.spool / "done/a.yaml").exists()


def test_a_broken_configuration_removes_nothing(host: Host) -> None:
    host.folder("dead.100")
    host.config.write_text("conversion_dri: /x\n")
    code, answer, _ = host.gc()
    assert (code, answer["error"]["code"]) == (78, "config-invalid")
    assert host.left() == {"dead.100"}


def test_spool_files_go_by_the_time_they_were_put_there(host: Host) -> None:
    for name in ("incoming", "active", "done", "failed", "rejected"):
        (host.spool / name / "a.yaml").write_text("x")
        os.utime(host.spool / name / "a.yaml", (LONG_AGO, LONG_AGO))
    (host.spool / "rejected/a.yaml.reason.json").write_text("{}")
    (host.spool / "done/kept").mkdir()
    assert host.gc()[1]["spool_files"] == []

    host.retention(conversions=1, spool=0, jobs=365)
    code, removed, _ = host.gc()
    names = {str(Path(path).relative_to(host.spool)) for path in removed["spool_files"]}
    assert (code, names) == (0, {"done/a.yaml", "failed/a.yaml", "rejected/a.yaml", "rejected/a.yaml.reason.json"})
    left = {str(path.relative_to(host.spool)) for path in host.spool.rglob("*.*")}
    assert left == {"incoming/a.yaml", "active/a.yaml"}


def test_an_outcome_goes_with_its_yaml(host: Host) -> None:
    (host.spool / "done/a.yaml").write_text("x")
    time.sleep(2)
    for name in ("a.yaml.result.json", "a.yaml.result.md"):
        (host.spool / "done" / name).write_text("x")
    host.retention(conversions=1, spool=1 / 86_400, jobs=365)
    assert len(host.gc("--dry-run")[1]["spool_files"]) == 3
    assert len(host.gc()[1]["spool_files"]) == 3
    assert [*(host.spool / "done").iterdir()] == []


def test_the_file_of_a_retried_job_stays(host: Host) -> None:
    """It is still in failed/ until the next scan of the spool."""
    job = host.ended("web01")
    for name in ("a.yaml", "a.yaml.reason.json", "b.yaml"):
        (host.spool / "failed" / name).write_text("x")
    host.store.move_spool_files({job.id: "failed/a.yaml"})
    host.store.retry(job.id, "test")
    host.retention(conversions=1, spool=0, jobs=365)
    for dry_run in (True, False):
        assert host.collect(dry_run=dry_run).spool_files == (host.spool / "failed/b.yaml",)


def test_rows_of_finished_jobs_go(host: Host) -> None:
    waiting, ended = host.submit("waiting"), host.submit("ended")
    host.store.cancel(ended.id, "test")
    assert host.gc()[1]["jobs"] == 0
    host.retention(conversions=1, spool=30, jobs=0)
    assert host.gc("--dry-run")[1]["jobs"] == 1
    assert {job.id for job in host.store.list()} == {waiting.id, ended.id}
    assert host.gc()[1]["jobs"] == 1
    assert {job.id for job in host.store.list()} == {waiting.id}
    assert host.store.forget(datetime.now(UTC) + timedelta(days=1)) == 0


def marked_by_file(folder: Path) -> None:
    """As on a file system without extended attributes."""
    (folder / quarantine.FILE).touch()
    os.utime(folder, (LONG_AGO, LONG_AGO))


def mark_of(folder: Path) -> float | None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        return quarantine.unknown_since(handle)
    finally:
        os.close(handle)


def let_quarantine_begin_earlier(folder: Path) -> None:
    earlier = time.time() - quarantine.QUARANTINE_SECONDS - 60
    if (folder / quarantine.FILE).exists():
        os.utime(folder / quarantine.FILE, (earlier, earlier))
    else:
        os.setxattr(folder, quarantine.ATTRIBUTE, f"{earlier:.0f}".encode())


LOOKING = """
import os, sys
from pathlib import Path
from hyper2kvmd.host import conversion_dir
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with conversion_dir.open_conversion_dir(Path(sys.argv[1]), 65534) as directory:
    print(directory.unused())
"""


def test_a_folder_of_another_user_is_passed_over(host: Host) -> None:
    """Root's own one-shot runs, in the service's directory: the service cannot even look at them."""
    host.folder("root.100")
    for path in (host.root, *host.root.parents):
        if not path.stat().st_mode & 1:
            path.chmod(path.stat().st_mode | 1)
    os.chown(host.conversions, 65534, 65534)
    command = [sys.executable, "-c", LOOKING, str(host.conversions)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("()\n", "")


def test_links_without_end(host: Host) -> None:
    for name, target in (("a", "b"), ("b", "a")):
        (host.root / name).symlink_to(target)
    with pytest.raises(MigrationFailed) as caught:
        follow_links(host.root / "a")
    assert caught.value.code == "directory-unusable"


def test_what_cannot_be_removed_is_said_and_the_rest_goes(host: Host) -> None:
    stuck = host.spool / "failed/stuck.yaml"
    for path in (stuck, host.spool / "failed/other.yaml"):
        path.write_text("x")
    subprocess.run(["mount", "--bind", stuck, stuck], check=True)
    try:
        host.retention(conversions=1, spool=0, jobs=365)
        code, removed, _ = host.gc()
    finally:
        subprocess.run(["umount", stuck], check=True)
    assert [Path(path).name for path in removed["spool_files"]] == ["other.yaml"]
    assert (code, [one["code"] for one in removed["problems"]]) == (1, ["leftover-not-removed"])
    assert [path.name for path in (host.spool / "failed").iterdir()] == ["stuck.yaml"]


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_another_user_is_sent_to_the_service_user(mode: int) -> None:
    """Whether that user cannot read the database, or cannot even see it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        host = Host(Path(name))
        host.store.close()
        for path in (host.database.parent, host.database):
            shutil.chown(path, "daemon")
        host.database.parent.chmod(mode)
        somebody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        command = [*somebody, sys.executable, "-m", "hyper2kvmd.cli.ctl", "gc", "--config", str(host.config)]
        result = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=60, check=False)
    assert result.returncode == 78 and "[database-unreadable]" in result.stderr
    assert "It belongs to daemon. Run `sudo -u daemon ctl.py gc --config " in result.stderr
