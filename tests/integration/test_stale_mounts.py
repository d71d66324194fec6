"""FUSE mounts that killed workers leave in their working folders: who clears them, and which are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyper2kvmd import config
from hyper2kvmd.cli.cleanup import collect
from hyper2kvmd.host.conversion_dir import remove_killed_runs
from hyper2kvmd.host.removal import mounts_below
from hyper2kvmd.host.workspace import working_folder
from hyper2kvmd.jobs.store import Store
from tests.support.house import House
from tests.support.stale_mounts import stale_mount

pytestmark = pytest.mark.root
PROJECT = Path(__file__).parents[2]
NOBODY = 65534
ONE_SHOT = "web01.20260101T000000Z-77"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "conversions" / ONE_SHOT
    folder.mkdir(mode=0o700, parents=True)
    folder.parent.chmod(0o700)
    (folder / "disk1.qcow2").write_text("x")
    return folder


def test_the_next_one_shot_run_removes_the_folder(folder: Path) -> None:
    with stale_mount(folder, os.geteuid()):
        assert remove_killed_runs(folder.parent) == (folder,)
    assert not folder.exists()


def test_the_next_attempt_works_in_the_folder_and_removes_it(folder: Path) -> None:
    """Its scratch folders go at once, its images stay."""
    (folder / "boot-abcdefgh").mkdir()
    (folder / "boot-abcdefgh/overlay.qcow2").write_text("x")
    (folder / "purpose").write_text("")
    with stale_mount(folder, os.geteuid()):
        name, _, job_id = ONE_SHOT.rpartition(".")
        with working_folder(folder.parent, name, job_id) as opened:
            assert {path.name for path in opened.iterdir()} == {"disk1.qcow2", "purpose"}
    assert not folder.exists()


def test_the_mount_of_another_user_is_left_with_its_folder(folder: Path) -> None:
    with stale_mount(folder, NOBODY) as path:
        with pytest.raises(Exception, match=r"fuse is mounted on .*/fuse.*\[leftover-not-removed\]"):
            remove_killed_runs(folder.parent)
        assert mounts_below(path)
    assert (folder / "disk1.qcow2").exists()


DETACHING = """
import os, sys
from hyper2kvmd.host import removal
print(len(removal.detach_stale(os.open(sys.argv[1], os.O_RDONLY))))
"""


def test_the_service_user_detaches_by_fusermount(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)
    for path in (folder.parent, *folder.parents[1:-1]):
        path.chmod(path.stat().st_mode | 0o011)
    with stale_mount(folder, NOBODY) as path:
        user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        command = [*user, sys.executable, "-c", DETACHING, str(folder)]
        assert subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=True).stdout == "1\n"
        assert mounts_below(path) == ()


def test_gc_says_in_a_dry_run_what_it_would_do(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "state").mkdir()
    loaded = config.load(House(tmp_path).configure(retention={"conversions": 0}))
    Store(loaded.database_url).close()
    with stale_mount(folder, os.geteuid()) as path:
        would = collect(loaded, dry_run=True)
        assert (would.mounts, would.folders) == ((path,), (folder,))
        assert mounts_below(path)
        assert collect(loaded, dry_run=False) == would
    assert not folder.exists()


def test_the_daemon_detaches_them_when_it_starts_and_counts_them(tmp_path: Path, folder: Path) -> None:
    house = House(tmp_path)
    house.configure()
    with stale_mount(folder, os.geteuid()) as path:
        house.start()
        assert mounts_below(path) == ()
        assert 'hyper2kvm_leftovers_cleared_total{kind="mount"} 1.0' in house.browse("/metrics")[1]
        house.close()
    assert folder.exists()
