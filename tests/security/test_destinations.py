"""Where results may go: directories that a submitter names in order to borrow the service's rights.

Everything is put before a daemon with the default lists (no `allowed_output_dirs`); the submitter is `nobody`. Every
directory of the service stands open to them here, so that nothing but the judgement of the daemon keeps them out.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.errors import Unsafe
from hyper2kvmd.host import acl
from hyper2kvmd.host.destination import make_output, require_configured
from hyper2kvmd.host.person import READ, SEARCH, WRITE
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import State
from hyper2kvmd.model.orders import Bounds, Order
from tests.support.disks import sh
from tests.support.host import USER
from tests.support.service import Service, until
from tests.support.submitters import (
    GROUP,
    GROUPS,
    IN_CLOSED,
    MASK,
    NOBODY,
    OTHER,
    OWNER,
    USERS,
    VICTIM,
    closed_folder,
    disk,
    drop,
    service_root,
    set_acl,
)


@pytest.fixture(scope="module")
def daemon(installed_helper: tuple[str, ...]) -> Iterator[Service]:
    root = service_root()
    service = Service(root, installed_helper)
    own = service_root()
    service.conversions, service.images = own / "conversions", service.state / "images"
    service.settings |= {
        "conversion_dir": service.conversions,
        "output_dir": service.images,
        "allowed_conversion_dirs": f"[{own}/scratch]",
    }
    service.state.mkdir()
    shutil.chown(service.state, USER, USER)
    service.state.chmod(0o751)
    with ExitStack() as stack:
        home = Path(pwd.getpwnam(USER).pw_dir)
        if not home.exists():
            home.mkdir()
            stack.callback(shutil.rmtree, home)
        service.start()
        (service.spool / "incoming").chmod(0o777)  # the daemon corrects it when it starts
        disk(root / "disk.raw", VICTIM, 0o644)
        yield service
        assert service.working_folders() == set()
        service.end()
        shutil.rmtree(root)
        shutil.rmtree(own)


def open_to_all(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    shutil.chown(directory, USER, USER)
    directory.chmod(0o777)
    return directory


def asked(daemon: Service, name: str, **keys: Any) -> None:
    drop(daemon, name, vmdk=daemon.root / "disk.raw", out_format="raw", **keys)


def as_user(user: str, *argv: object) -> subprocess.CompletedProcess[str]:
    prefix = ("setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups", "--")
    return subprocess.run([*prefix, *map(str, argv)], capture_output=True, text=True, check=False)


# ---------------------------------------------------------------- the service's own directories

PRIVATE = {
    "spool": "{spool}",
    "incoming": "{spool}/incoming",
    "incoming-below": "{spool}/incoming/new",
    "active": "{spool}/active",
    "state": "{state}",
    "state-below": "{state}/new/deep",
    "conversions": "{conversions}",
    "home": "{home}",
    "home-ssh": "{home}/.ssh",
    "above": "{root}",
    "other-name": "{root}/mounted",
    "other-name-below": "{root}/mounted/new",
    "other-name-of-incoming": "{root}/dropbox",
    "by-link": "{root}/link",
}


@pytest.fixture(scope="module")
def asked_for_private(daemon: Service) -> dict[str, tuple[str, ...]]:
    """How each job ended that named a directory of the service's: its codes, and what it left there."""
    home = Path(pwd.getpwnam(USER).pw_dir)
    known = {"spool": daemon.spool, "state": daemon.state, "conversions": daemon.conversions, "home": home}
    aims = {name: Path(text.format(root=daemon.root, **known)) for name, text in PRIVATE.items()}
    with ExitStack() as stack:
        for directory in (daemon.root, daemon.spool, daemon.spool / "active", daemon.state, home):
            before = directory.stat()
            stack.callback(os.chown, directory, before.st_uid, before.st_gid)
            stack.callback(directory.chmod, stat.S_IMODE(before.st_mode))
            shutil.chown(directory, USER)
            directory.chmod(0o777)
        for name, folder in (("mounted", daemon.spool), ("dropbox", daemon.spool / "incoming")):
            mounted = daemon.root / name
            mounted.mkdir()
            sh("mount", "--bind", folder, mounted)
            stack.callback(sh, "umount", mounted)
        aims["by-link"].symlink_to(daemon.spool / "incoming")
        for name, aim in aims.items():
            asked(daemon, f"to-{name}", output_dir=aim)
        codes = {name: tuple(one.code for one in daemon.finished(f"to-{name}").problems) for name in aims}
        return {name: (*codes[name], *left_by(f"to-{name}", aim)) for name, aim in aims.items()}


def left_by(name: str, aim: Path) -> tuple[str, ...]:
    """Results of the job. Removed, so that the other jobs find what they would have found."""
    yaml = f"{name}.yaml"  # and what became of it
    found = tuple(path for path in aim.rglob(f"{name}.*") if not path.name.startswith(yaml))
    for path in found:
        path.unlink(missing_ok=True)  # a directory that is mounted twice shows it twice
    return tuple(path.name for path in found)


@pytest.mark.parametrize("name", PRIVATE)
def test_a_directory_of_the_service_itself(asked_for_private: dict[str, tuple[str, ...]], name: str) -> None:
    """Even for somebody who can create files there; by whatever name: a link, or a second mount of it."""
    assert asked_for_private[name] == ("output-private",)


@pytest.fixture
def own(service_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The service's own directories, as `configured` names them, and others of the same file system."""
    for name in ("spool/incoming", "state/conversions", "other/conversions", "home", "elsewhere"):
        (service_folder / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(service_folder / "home"))
    return service_folder


def configured(own: Path, output: str, **keys: Path) -> Bounds:
    """What submitters' jobs may name, with `output` as the configured output directory."""
    names = {"spool_dir": own / "spool", "state_dir": own / "state", "conversion_dir": own / "state/conversions"}
    others = (own / "other/conversions", own / "later/conversions")
    asked = {**names, **keys, "output_dir": own / output, "allowed_conversion_dirs": others}
    return DaemonConfig.model_validate(asked).bounds


OWN = {
    "spool": "spool",
    "below the spool": "spool/new/deep",
    "spool by a link": "link/incoming",
    "state": "state",
    "state by another mount": "mounted",
    "conversions": "state/conversions",
    "below another conversion directory": "other/conversions/new",
    "missing conversion directory": "later/conversions/images",
    "home": "home",
    "above": ".",
}


@pytest.mark.parametrize("name", OWN)
def test_a_configured_directory_that_is_the_services_own(own: Path, name: str) -> None:
    """Submitters' results would lie among the files of the service, by whatever name it is configured."""
    (own / "link").symlink_to("spool")
    (own / "mounted").mkdir()
    sh("mount", "--bind", own / "state", own / "mounted")
    try:
        with pytest.raises(Unsafe) as caught:
            require_configured(configured(own, OWN[name]))
    finally:
        sh("umount", own / "mounted")
    assert caught.value.code == "output-private"


@pytest.mark.parametrize("output", ["state/images", "state/new/images", "home/images"])
def test_a_configured_directory_where_results_may_lie(own: Path, output: str) -> None:
    require_configured(configured(own, output))


def test_a_job_judges_the_configured_directory(own: Path) -> None:
    """It may have become a directory of the service's after the daemon had looked at it."""
    bounds = configured(own, "elsewhere")
    order = Order(
        job_id="7",
        migration=Migration(vmdk=(own / "disk.raw",), vm_name="web01"),
        submitter=VICTIM,
        submitter_uid=NOBODY,
        conversion_dir=own / "state/conversions",
        output_dir=own / "elsewhere",
        helper=("none",),
        bounds=bounds,
    )
    make_output(order)
    sh("mount", "--bind", own / "spool", own / "elsewhere")
    try:
        with pytest.raises(Unsafe) as caught:
            make_output(order)
    finally:
        sh("umount", own / "elsewhere")
    assert caught.value.code == "output-private"


def test_a_file_of_the_services_own_is_no_submission(daemon: Service) -> None:
    """However it came there: it has the service's rights, which no submitter has."""
    drop(daemon, "own-file", owner=USER, vmdk=daemon.root / "disk.raw")
    job = daemon.finished("own-file")
    assert (job.state, [one.code for one in job.problems]) == (State.REJECTED, ["spool-own-file"])


@pytest.mark.parametrize("name", ["steal.yaml", "web02.xml", "web02.report.json", "jobs.sqlite3-journal", "config"])
def test_an_image_is_called_nothing_else(daemon: Service, name: str) -> None:
    vm = f"called-{name.replace('.', '-')}"
    asked(daemon, vm, to_output=name)
    job = daemon.finished(vm)
    assert (job.state, [one.code for one in job.problems]) == (State.REJECTED, ["value-conflict"])
    assert not (daemon.images / name).exists()


# ---------------------------------------------------------------- directories of others


@pytest.mark.parametrize("name", ["closed", "closed-below", "shut-above", "acl-refuses"])
def test_a_directory_where_they_may_create_nothing(daemon: Service, name: str) -> None:
    """The service can, and is asked to with its own rights."""
    place = open_to_all(daemon.root / f"place-{name}")
    aim = place
    if name.startswith("closed"):
        place.chmod(0o755)
        aim = place / "new" if name.endswith("below") else place
    elif name == "shut-above":
        aim = open_to_all(place / "inner")
        place.chmod(0o700)
    else:
        set_acl(place, (OWNER, 7, -1), (USERS, 5, NOBODY), (GROUP, 7, -1), (MASK, 7, -1), (OTHER, 7, -1))
    asked(daemon, f"into-{name}", output_dir=aim)
    job = daemon.failed(f"into-{name}", "submitter-may-not-write")
    assert "nobody (who submitted this job)" in job.problems[0].message
    assert not [path for path in place.rglob("*") if path.name != "inner"]


def test_what_lies_in_a_closed_directory_is_not_said(daemon: Service) -> None:
    """Whether it exists, of which kind it is, where a link leads to."""
    closed = closed_folder(daemon.root / "place-shut")
    said = set()
    for way in ("nothing", *IN_CLOSED):
        asked(daemon, f"unsaid-{way}", output_dir=closed / way)
        (problem,) = daemon.failed(f"unsaid-{way}", "submitter-may-not-write").problems
        said.add(problem.message.replace(str(closed / way), "DIRECTORY"))
    assert len(said) == 1


@pytest.mark.parametrize("kind", ["theirs", "acl", "configured", "new"])
def test_a_directory_where_they_may(daemon: Service, kind: str) -> None:
    place = daemon.root / f"good-{kind}"
    keys: dict[str, Any] = {"output_dir": place}
    if kind == "configured":
        keys = {}
    elif kind == "acl":
        open_to_all(place).chmod(0o700)
        set_acl(place, (OWNER, 7, -1), (USERS, 7, NOBODY), (GROUP, 0, -1), (MASK, 7, -1), (OTHER, 0, -1))
    else:
        open_to_all(place)
        keys = {"output_dir": place / "deep" / "er"} if kind == "new" else keys
    asked(daemon, f"good-{kind}", **keys)
    job = daemon.finished(f"good-{kind}")
    assert job.state is State.SUCCEEDED, job.problems


def test_results_are_the_submitters_to_read(daemon: Service) -> None:
    """In a directory that was made for them: they list and use it, QEMU's user passes through, nobody else reads."""
    place = open_to_all(daemon.root / "results")
    for number in (1, 2):  # the directory that the first job made serves the second
        asked(daemon, f"result{number}", output_dir=place / "made", checksum="true")
        job = daemon.finished(f"result{number}")
        assert job.state is State.SUCCEEDED, job.problems
    made = place / "made"
    wanted = {f"result1{ending}" for ending in (".raw", ".raw.sha256", ".xml", ".report.json", ".report.md")}
    listed = as_user(VICTIM, "ls", made)
    assert wanted <= set(listed.stdout.split()), listed.stderr
    for name in wanted:
        assert as_user(VICTIM, "test", "-r", made / name).returncode == 0, name
        assert as_user("daemon", "test", "-r", made / name).returncode == 1, name
        assert stat.S_IMODE((made / name).stat().st_mode) == 0o640, name
    assert as_user("daemon", "test", "-x", made).returncode == 0
    assert as_user("daemon", "ls", made).returncode != 0
    asked(daemon, "configured")  # which the first job has made, for everybody
    assert daemon.finished("configured").state is State.SUCCEEDED
    assert as_user(VICTIM, "test", "-r", daemon.images / "configured.raw").returncode == 0
    assert as_user(VICTIM, "test", "-w", daemon.images).returncode == 1


@pytest.mark.parametrize("setgid", [True, False], ids=["setgid", "not setgid"])
def test_who_reads_results_in_a_directory_of_a_group(daemon: Service, setgid: bool) -> None:
    """Everything that is published, linked or created, is for the group of a setgid directory, and for no other one."""
    place = daemon.root / f"team{setgid:d}"
    place.mkdir()
    shutil.chown(place, VICTIM, "games")
    place.chmod(0o2777 if setgid else 0o777)
    asked(daemon, f"team{setgid:d}", output_dir=place)
    job = daemon.finished(f"team{setgid:d}")
    assert job.state is State.SUCCEEDED, job.problems
    for name in (f"team{setgid:d}.raw", f"team{setgid:d}.xml", f"team{setgid:d}.report.json"):
        assert as_user(VICTIM, "test", "-r", place / name).returncode == 0
        assert as_user("games", "test", "-r", place / name).returncode == (0 if setgid else 1), name
        assert as_user("games", "test", "-w", place / name).returncode == 1
        assert as_user("daemon", "test", "-r", place / name).returncode == 1
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "limited",
    [(USERS, 7, pwd.getpwnam("games").pw_uid), (GROUPS, 7, pwd.getpwnam("games").pw_gid), (GROUP, 7, -1)],
    ids=["a user", "a group", "the directory's group"],
)
def test_a_right_for_the_submitter_is_none_for_others(limited: tuple[int, int, int]) -> None:
    """Whose write permission the mask has taken away: it stays so when the mask has to grow for the submitter's."""
    folder = Path(tempfile.mkdtemp(prefix="h2k-test-", dir="/var/tmp"))
    shutil.chown(folder, group="games")
    others = () if limited[0] == GROUP else ((GROUP, 5, -1),)
    set_acl(folder, (OWNER, 7, -1), limited, *others, (MASK, 5, -1), (OTHER, 5, -1))
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        acl.grant(handle, acl.AclEntry(acl.USER, READ | WRITE | SEARCH, NOBODY))
        assert as_user(VICTIM, "test", "-w", folder).returncode == 0
        assert as_user("games", "test", "-r", folder).returncode == 0
        assert as_user("games", "test", "-w", folder).returncode == 1
    finally:
        os.close(handle)
        shutil.rmtree(folder)


def test_a_result_is_named_by_where_it_lies(daemon: Service) -> None:
    """A link on the way is its owner's to change: the domain names the image behind it."""
    place = open_to_all(daemon.root / "behind")
    way = daemon.root / "way"
    way.symlink_to(place)
    asked(daemon, "linked-out", output_dir=way)
    job = daemon.finished("linked-out")
    assert job.state is State.SUCCEEDED, job.problems
    assert f"{place}/linked-out.raw" in (place / "linked-out.xml").read_text()
    assert json.loads((place / "linked-out.report.json").read_text())["published"][0]["path"].startswith(f"{place}/")


# ---------------------------------------------------------------- where it converts


@pytest.mark.parametrize("aim", ["spool/active", "state", "elsewhere"])
def test_a_conversion_directory_that_no_administrator_allows(daemon: Service, aim: str) -> None:
    name = f"convert-{aim.replace('/', '-')}"
    asked(daemon, name, conversion_dir=daemon.root / aim)
    daemon.failed(name, "path-not-allowed")
    assert not (daemon.root / "elsewhere").exists()


def test_a_conversion_directory_that_one_allows(daemon: Service) -> None:
    asked(daemon, "convert-scratch", conversion_dir=daemon.conversions.parent / "scratch")
    assert daemon.finished("convert-scratch").state is State.SUCCEEDED
    assert (daemon.conversions.parent / "scratch").is_dir()


def test_a_link_to_one_that_is_allowed(daemon: Service) -> None:
    """Its owner could let it lead elsewhere while the job runs."""
    way = daemon.root / "way-to-scratch"
    way.symlink_to(daemon.conversions.parent / "scratch")
    asked(daemon, "convert-link", conversion_dir=way)
    daemon.failed("convert-link", "path-not-allowed")


def test_a_dry_run_makes_and_removes_no_output_directory(daemon: Service) -> None:
    """It is found by name, and the name may lead elsewhere by the time it is to be removed."""
    place = open_to_all(daemon.root / "dry")
    asked(daemon, "dry", output_dir=place / "new/deep", dry_run="true")
    assert daemon.finished("dry").state is State.SUCCEEDED
    assert list(place.iterdir()) == []


def test_cancelling_removes_nothing_elsewhere(daemon: Service) -> None:
    """The folder of a job that waits is looked for where it asks to be converted."""
    daemon.ctl("pause")
    try:
        keep = daemon.root / "keep"
        asked(daemon, "cancelled", conversion_dir=keep)
        until("it waits", lambda: daemon.job("cancelled"))
        job = daemon.job("cancelled")
        assert job is not None
        folder = keep / f"cancelled.{job.id}"
        folder.mkdir(parents=True)
        for path in (keep, folder):
            shutil.chown(path, USER, USER)
            path.chmod(0o700)
        daemon.ctl("cancel", job.id)
        daemon.finished("cancelled")
        assert folder.is_dir()
    finally:
        daemon.ctl("resume")
