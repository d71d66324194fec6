"""`h2kvmctl gc`, run by root: what others plant so that it removes something elsewhere.

The conversion directory is configured below a directory that everybody may write to, and does not exist until somebody
makes it; or the service user was taken and puts links into its own directories.
"""

from __future__ import annotations

import os
import pwd
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hyper2kvmd.cli.cleanup import Removed, collect
from hyper2kvmd.config import DaemonConfig, Retention
from hyper2kvmd.host import conversion_dir, workspace
from hyper2kvmd.jobs.store import Store
from tests.support.host import USER

STRANGER = "nobody"
LONG_AGO = time.time() - 40 * 86_400


class Host:
    """The service's directories, those of root and one that is open to all."""

    def __init__(self, root: Path) -> None:
        self.open, self.state, self.roots = root / "open", root / "state", root / "roots"
        for folder in (self.open, self.state, self.roots, self.state / "spool/done"):
            folder.mkdir(parents=True)
        self.open.chmod(0o1777)
        Store(f"sqlite:///{self.state}/jobs.sqlite3").close()
        for path in (self.state, *self.state.rglob("*")):
            shutil.chown(path, USER, USER)

    def victim(self, place: Path, owner: str = USER) -> Path:
        """A folder that looks like one of a dead worker's, in a directory of the owner's."""
        path = place / "web01.20260101T000000Z-77"
        path.mkdir(parents=True)
        (path / "disk.qcow2").write_text("an image")
        os.utime(path, (LONG_AGO, LONG_AGO))
        for made in (place, path):
            shutil.chown(made, owner)
        return path

    def collect(self, conversion_dir: Path) -> Removed:
        config = DaemonConfig(
            state_dir=self.state,
            spool_dir=self.state / "spool",
            conversion_dir=conversion_dir,
            database_url=f"sqlite:///{self.state}/jobs.sqlite3",
            retention=Retention(spool=0),
        )
        return collect(config, dry_run=False)


@pytest.fixture
def host(service_folder: Path) -> Host:
    shutil.chown(service_folder, "root", "root")
    return Host(service_folder)


def link(path: Path, target: Path, owner: str) -> None:
    path.symlink_to(target)
    entry = pwd.getpwnam(owner)
    os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


Planted = tuple[Path, Path]
"""The conversion directory of the configuration, and what must not be removed."""


def link_of_theirs(host: Host) -> Planted:
    link(host.open / "conversions", host.state / "images", STRANGER)
    return host.open / "conversions", host.victim(host.state / "images")


def link_of_theirs_above(host: Host) -> Planted:
    link(host.open / "way", host.state, STRANGER)
    return host.open / "way/images", host.victim(host.state / "images")


def link_that_they_can_replace(host: Host) -> Planted:
    host.open.chmod(0o777)
    link(host.open / "conversions", host.state / "images", "root")
    return host.open / "conversions", host.victim(host.state / "images")


def link_of_the_services(host: Host) -> Planted:
    link(host.state / "conversions", host.roots / "backups", USER)
    return host.state / "conversions", host.victim(host.roots / "backups", "root")


def directory_of_theirs(host: Host) -> Planted:
    """Into which they have moved what they could not remove."""
    return host.open / "conversions", host.victim(host.open / "conversions", STRANGER)


def directory_below_one_of_theirs(host: Host) -> Planted:
    (host.open / "theirs").mkdir()
    shutil.chown(host.open / "theirs", STRANGER)
    return host.open / "theirs/conversions", host.victim(host.open / "theirs/conversions")


PLANTS: dict[str, Callable[[Host], Planted]] = {
    "link": link_of_theirs,
    "link above": link_of_theirs_above,
    "link that they can replace": link_that_they_can_replace,
    "link of the service's": link_of_the_services,
    "directory": directory_of_theirs,
    "directory above": directory_below_one_of_theirs,
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_conversion_directory_of_somebody_elses_choice(host: Host, name: str) -> None:
    """It is passed over, and said to be."""
    place, victim = PLANTS[name](host)
    removed = host.collect(place)
    assert (victim / "disk.qcow2").exists()
    assert [one.code for one in removed.problems] == ["directory-shared"]
    assert removed.folders == ()


@pytest.mark.parametrize("owner", ["root", USER])
def test_a_conversion_directory_behind_a_link_of_roots(host: Host, owner: str) -> None:
    """As an administrator makes it; root's own directory as well as the service's."""
    victim = host.victim((host.state if owner == USER else host.roots) / "conversions", owner)
    link(host.open / "conversions", victim.parent, "root")
    assert host.collect(host.open / "conversions").folders == (victim,)
    assert not victim.exists()


def test_a_directory_that_is_swapped_before_it_is_opened(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the service, for a link to a directory of root's."""
    host.victim(host.state / "moved/conversions")
    victim = host.victim(host.roots / "conversions", "root")
    look = workspace.follow_links

    def look_and_swap(path: Path) -> Path:
        real = look(path)
        real.parent.rename(host.state / "before")
        link(real.parent, host.roots, USER)
        return real

    monkeypatch.setattr(conversion_dir, "follow_links", look_and_swap)
    assert [one.code for one in host.collect(host.state / "moved/conversions").problems] == ["directory-shared"]
    assert victim.exists()


def test_a_directory_that_is_swapped_before_something_is_removed(host: Host) -> None:
    ours = host.victim(host.state / "conversions")
    victim = host.victim(host.roots / "conversions", "root")
    with conversion_dir.open_conversion_dir(ours.parent, pwd.getpwnam(USER).pw_uid) as directory:
        (folder,) = directory.unused()
        ours.parent.rename(host.state / "before")
        link(ours.parent, victim.parent, USER)
        assert directory.discard(folder.name, lambda: True)
    assert victim.exists()
    assert not (host.state / "before" / ours.name).exists()


def test_a_folder_of_the_spool_that_leads_elsewhere(host: Host) -> None:
    """The files in there are older than any retention."""
    (host.roots / "keep").write_text("a file of root's")
    (host.state / "spool/done").rmdir()
    link(host.state / "spool/done", host.roots, USER)
    removed = host.collect(host.state / "conversions")
    assert (host.roots / "keep").exists()
    assert [one.code for one in removed.problems] == ["leftover-not-removed"]
