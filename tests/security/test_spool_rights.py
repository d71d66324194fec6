"""The spool as an unprivileged service user meets it: files of others that it may not read, or not move."""

from __future__ import annotations

import errno
import grp
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.config import SPOOL_MODES, SpoolFolder
from hyper2kvmd.daemon import incoming
from hyper2kvmd.daemon.folders import prepare
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.spool import Spool
from hyper2kvmd.daemon.wire import Rejection
from hyper2kvmd.errors import BrokenInstallation
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import JobFilter, State

pytestmark = pytest.mark.usefixtures("settles_at_once")

NOBODY = 65534
GROUP = 60
"""Any that exists: games."""
TMPFILES = Path(__file__).parents[2] / "packaging/tmpfiles.d/hyper2kvm.conf"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the user that this test becomes; the file system asks for the effective ids."""
    folder = Path(tempfile.mkdtemp(prefix="h2k-spool-", dir="/tmp"))
    os.chown(folder, NOBODY, NOBODY)
    folder.chmod(0o750)
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    yield folder
    os.seteuid(0)
    os.setegid(0)
    os.setgroups(groups)
    shutil.rmtree(folder)


def as_root_write(path: Path, text: str, mode: int) -> None:
    os.seteuid(0)
    path.write_text(text)
    path.chmod(mode)
    os.seteuid(NOBODY)


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{folder}/jobs.sqlite3")
    yield store
    store.close()


def test_a_file_of_another_user_that_may_not_be_read_is_rejected_with_the_remedy(folder: Path, store: Store) -> None:
    prepare(folder)
    assert (folder / "incoming").stat().st_mode & 0o777 == 0o770
    as_root_write(folder / "incoming" / "secret.yaml", "vmdk: /a.vmdk\n", 0o600)
    as_root_write(folder / "incoming" / "plain.yaml", "vmdk: /b.vmdk\n", 0o644)
    spool = Spool(folder, store, Metrics())
    assert spool.scan().jobs == 0, "nothing is taken at first sight"
    assert spool.scan().jobs == 1
    reason = Rejection.model_validate_json((folder / "rejected" / "secret.yaml.reason.json").read_text())
    assert [problem.code for problem in reason.problems] == ["spool-unreadable"]
    assert "chmod o+r" in reason.problems[0].hint
    (job,) = store.list(JobFilter(states=(State.QUEUED,)))
    assert (job.vm_name, job.submitter) == ("plain", "root")


def test_what_may_not_be_moved_is_told_once_and_stops_no_other(
    folder: Path, store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(folder)
    rename = Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if path.name == "a-stuck.yaml":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    as_root_write(folder / "incoming" / "a-stuck.yaml", "vmdk: /a.vmdk\n", 0o644)
    as_root_write(folder / "incoming" / "b-free.yaml", "vmdk: /b.vmdk\n", 0o644)
    spool = Spool(folder, store, Metrics())
    with caplog.at_level(logging.ERROR):
        assert sum(spool.scan().jobs for _ in range(5)) == 1
    assert [job.vm_name for job in store.list()] == ["b-free"]
    assert len([record for record in caplog.records if "a-stuck.yaml" in record.getMessage()]) == 1
    monkeypatch.undo()
    monkeypatch.setattr(incoming, "STABLE_SECONDS", 0)
    assert sum(spool.scan().jobs for _ in range(2)) == 1


def given_to(folder: Path, group: int, *memberships: int) -> None:
    os.seteuid(0)
    os.chown(folder, NOBODY, group)
    folder.chmod(0o750)
    os.setgroups(memberships)
    os.seteuid(NOBODY)


def test_folders_that_are_missing_are_made_as_a_package_makes_them(folder: Path) -> None:
    """Submitters touch nobody else's files, and nobody can write to theirs."""
    given_to(folder, GROUP, GROUP)
    prepare(folder)
    lines = [line.split() for line in TMPFILES.read_text().splitlines() if line.startswith("d /var/spool/hyper2kvm/")]
    wanted = {Path(words[1]).name: int(words[2], 8) for words in lines}
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == wanted
    assert {path.stat().st_gid for path in folder.iterdir()} == {GROUP}
    mask = os.umask(0)
    try:
        dropped = folder / "incoming/web01.yaml"
        dropped.touch()
    finally:
        os.umask(mask)
    facts = dropped.stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_gid) == (0o640, GROUP)


def test_a_folder_that_cannot_be_made_for_submitters_is_missing_still(folder: Path) -> None:
    given_to(folder, GROUP)
    with pytest.raises(BrokenInstallation) as refusal:
        prepare(folder)
    assert refusal.value.code == "spool-incomplete"
    assert f"install -d -m 3770 -o nobody -g {grp.getgrgid(GROUP).gr_name} {folder}/incoming" in refusal.value.hint
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", SPOOL_MODES)
@pytest.mark.parametrize("mode", [0o500, 0o777, 0o755])
def test_a_folder_with_other_rights_gets_the_right_ones(
    folder: Path, name: SpoolFolder, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    given_to(folder, GROUP, GROUP)
    prepare(folder)
    (folder / name).chmod(mode)
    os.chown(folder / name, -1, NOBODY)
    prepare(folder)
    facts = (folder / name).stat()
    assert stat.S_IMODE(facts.st_mode) == SPOOL_MODES[name]
    assert facts.st_gid == GROUP
    assert f"{folder / name}: it belongs to nobody and the group nogroup, mode {mode:04o}" in caplog.text


def test_a_folder_of_a_group_without_the_daemon_is_refused(folder: Path) -> None:
    given_to(folder, GROUP, GROUP)
    prepare(folder)
    (folder / "done").chmod(0o700)
    given_to(folder, GROUP)
    assert (
        refused(folder)
        == f"Correct it as root: `install -d -m 2750 -o nobody -g {grp.getgrgid(GROUP).gr_name} {folder}/done`"
    )
    assert stat.S_IMODE((folder / "done").stat().st_mode) & 0o022 == 0


def test_a_folder_of_somebody_else_is_refused(folder: Path) -> None:
    prepare(folder)
    os.seteuid(0)
    os.chown(folder / "incoming", 0, NOBODY)
    os.seteuid(NOBODY)
    assert f"install -d -m 3770 -o nobody -g nogroup {folder}/incoming" in refused(folder)


def test_a_spool_directory_of_the_daemon_alone_is_corrected(folder: Path) -> None:
    folder.chmod(0o777)
    prepare(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


@pytest.mark.parametrize(
    ("owner", "mode", "shared"),
    [(NOBODY, 0o1777, ""), (NOBODY, 0o777, "other"), (0, 0o777, ""), (5, 0o755, "")],
)
def test_a_directory_that_others_use_is_no_spool(folder: Path, owner: int, mode: int, shared: str) -> None:
    """Its rights stay as they are; the remedy is a directory below it."""
    if shared:
        (folder / shared).touch()
    given_to(folder, GROUP, GROUP)
    os.seteuid(0)
    os.chown(folder, owner, GROUP)
    folder.chmod(mode)
    os.seteuid(NOBODY)
    hint = refused(folder)
    assert hint.startswith(f"Set spool_dir to {folder}/hyper2kvm, and create it as root: `install -d -m 0750 -o nobody")
    assert stat.S_IMODE(folder.stat().st_mode) == mode
    assert not (folder / "incoming").exists()


def refused(folder: Path) -> str:
    """The remedy."""
    with pytest.raises(BrokenInstallation) as refusal:
        prepare(folder)
    assert refusal.value.code == "spool-rights"
    return refusal.value.hint
