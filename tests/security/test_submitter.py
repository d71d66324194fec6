"""The confused deputy: what others ask the daemon for, with its rights instead of theirs.

Everything is put before a daemon that runs as the service user; the submitter is `nobody`, who owns the YAML.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.daemon.folders import prepare
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.spool import Spool
from hyper2kvmd.disk.files import open_file
from hyper2kvmd.errors import Failure, Unsafe
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.host.person import READ, SEARCH, Person
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import NOBODY_AT_ALL, State
from hyper2kvmd.model.orders import Order
from tests.support.host import USER
from tests.support.own_host import FOLDER_PREFIX
from tests.support.service import Service, until
from tests.support.submitters import (
    GROUP,
    GROUPS,
    IN_CLOSED,
    MASK,
    NOBODY,
    NOGROUP,
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
from tests.support.vmdk_images import descriptor


@pytest.fixture(scope="module")
def daemon(installed_helper: tuple[str, ...]) -> Iterator[Service]:
    """One daemon for all attacks; anybody may drop files, and may have sources and outputs below `shared`."""
    root = service_root()
    service = Service(root, installed_helper)
    shared = root / "shared"
    for folder in (shared, shared / "out"):
        folder.mkdir()
        shutil.chown(folder, USER, USER)
    service.settings |= {"allowed_source_dirs": f"[{shared}]", "allowed_output_dirs": f"[{shared}]"}
    service.start()
    (service.spool / "incoming").chmod(0o777)  # the daemon corrects it when it starts
    yield service
    assert not [job for job in service.jobs() if job.state is State.RUNNING]
    assert service.working_folders() == set()
    service.end()
    shutil.rmtree(root)


def refused(daemon: Service, name: str, code: str) -> None:
    daemon.failed(name, code)
    assert not list(daemon.images.glob(f"{name}*"))
    assert not any(name in folder for folder in daemon.working_folders())


def test_a_disk_that_only_the_service_may_read(daemon: Service) -> None:
    source = disk(daemon.root / "shared/private.raw", USER, 0o600)
    drop(daemon, "private", vmdk=source)
    refused(daemon, "private", "submitter-may-not-read")
    drop(daemon, "own", owner="root", vmdk=source)
    job = daemon.finished("own")
    assert [one.code for one in job.problems] != ["submitter-may-not-read"]


def test_a_disk_in_a_folder_that_is_closed_to_them(daemon: Service) -> None:
    folder = daemon.root / "shared/closed"
    folder.mkdir(mode=0o700)
    shutil.chown(folder, USER)
    drop(daemon, "closed", vmdk=disk(folder / "disk.raw", USER, 0o644))
    refused(daemon, "closed", "submitter-may-not-read")


def test_what_lies_in_a_closed_folder_is_not_even_said_to_exist(daemon: Service) -> None:
    """Nor of which kind it is, nor where a link there leads to: the closed folder alone is named."""
    closed = closed_folder(daemon.root / "shared/shut")
    said = set()
    for way in ("disk.raw", "nothing/disk.raw", *(f"{name}/disk.raw" for name in IN_CLOSED)):
        name = f"shut-{way.replace('/', '-')}"
        drop(daemon, name, vmdk=closed / way)
        (problem,) = daemon.failed(name, "submitter-may-not-read").problems
        said.add(problem.message.replace(str(closed / way), "DISK"))
    (message,) = said
    assert message.endswith(f"permission denied at {closed}")


def test_a_folder_that_they_may_search_and_the_service_may_not(daemon: Service) -> None:
    """Their disk is there: the error names the permission that the service lacks."""
    folder = daemon.root / "shared/private"
    folder.mkdir()
    source = disk(folder / "disk.raw", VICTIM, 0o644)
    shutil.chown(folder, VICTIM)
    folder.chmod(0o700)
    for way in (source, folder / "inner/disk.raw"):
        name = f"unreached-{way.parent.name}"
        drop(daemon, name, vmdk=way)
        refused(daemon, name, "source-unreadable")


def test_the_same_text_of_somebody_else_is_no_duplicate(daemon: Service) -> None:
    """Else who copies a YAML first keeps its owner's from being done."""
    daemon.ctl("pause")
    try:
        for owner in (VICTIM, "root"):
            drop(daemon, f"twin-{owner}", owner=owner, vmdk="/a.raw", vm_name="twin")
        until("both are jobs", lambda: len([job for job in daemon.jobs() if job.vm_name == "twin"]) == 2)
        for job in daemon.jobs():
            if job.vm_name == "twin":
                daemon.ctl("cancel", job.id)
    finally:
        daemon.ctl("resume")


def test_an_extent_that_is_linked_to_anothers_disk(daemon: Service) -> None:
    """A hard link gives a name, not a right."""
    secret = disk(daemon.root / "shared/linked.raw", USER, 0o600)
    folder = daemon.root / "shared/theirs"
    folder.mkdir()
    os.link(secret, folder / "flat.vmdk")
    text = descriptor("monolithicFlat", 'RW 2048 FLAT "flat.vmdk" 0')
    (folder / "disk.vmdk").write_bytes(text)
    drop(daemon, "linked", vmdk=folder / "disk.vmdk")
    refused(daemon, "linked", "submitter-may-not-read")


def test_a_key_that_only_the_service_may_read(daemon: Service) -> None:
    key = daemon.root / "shared/key"
    key.write_text("a passphrase")
    shutil.chown(key, USER)
    key.chmod(0o600)
    drop(daemon, "key", vmdk=disk(daemon.root / "shared/open.raw", USER, 0o644), luks_keyfile=key)
    refused(daemon, "key", "submitter-may-not-read")


@pytest.mark.parametrize(
    ("name", "source"),
    [("passwd", "/etc/passwd"), ("above", "shared/../state/jobs.sqlite3"), ("absent", "/srv/none.raw")],
)
def test_a_source_outside_of_what_is_allowed(daemon: Service, name: str, source: str) -> None:
    """One that does not exist is told apart from no other."""
    drop(daemon, name, vmdk=source if source.startswith("/") else f"{daemon.root}/{source}")
    refused(daemon, name, "path-not-allowed")


def test_a_folder_that_leads_out_of_what_is_allowed(daemon: Service) -> None:
    disk(daemon.root / "outside.raw", USER, 0o644)
    (daemon.root / "shared/way").symlink_to("..")
    drop(daemon, "way", vmdk=daemon.root / "shared/way/outside.raw")
    refused(daemon, "way", "path-not-allowed")


@pytest.mark.parametrize("key", ["output_dir", "conversion_dir"])
def test_an_output_outside_of_what_is_allowed(daemon: Service, key: str) -> None:
    source = disk(daemon.root / f"shared/{key}.raw", USER, 0o644)
    aim = daemon.root / "elsewhere"
    named: dict[str, Any] = {key: aim}
    drop(daemon, key.replace("_", ""), vmdk=source, **named)
    refused(daemon, key.replace("_", ""), "path-not-allowed")
    assert not aim.exists()


@pytest.mark.parametrize(
    ("name", "code", "mode", "incoming"),
    [
        ("everybody", "spool-shared", 0o646, 0o777),
        ("the-group", "spool-shared", 0o664, 0o777),
        ("moved", "spool-not-theirs", 0o644, 0o770),
    ],
)
def test_a_yaml_that_somebody_else_may_have_written(
    daemon: Service, name: str, code: str, mode: int, incoming: int
) -> None:
    """Writable by more than its owner, or of somebody who may not drop files here: then another one has moved it in."""
    (daemon.spool / "incoming").chmod(incoming)
    try:
        drop(daemon, name, mode=mode, vmdk="/a.raw")
        job = daemon.finished(name)
    finally:
        (daemon.spool / "incoming").chmod(0o777)
    assert (job.state, [one.code for one in job.problems]) == (State.REJECTED, [code])


def test_a_yaml_that_an_acl_lets_somebody_else_write(daemon: Service) -> None:
    """Its group is its owner's own, and has no other member."""
    draft = daemon.root / "by-acl.yaml"
    draft.write_text("vmdk: /a.raw\n")
    shutil.chown(draft, "games", "games")
    set_acl(draft, (OWNER, 6, -1), (USERS, 6, NOBODY), (GROUP, 4, -1), (MASK, 6, -1), (OTHER, 4, -1))
    draft.rename(daemon.spool / "incoming" / draft.name)
    job = daemon.finished("by-acl")
    assert (job.state, [one.code for one in job.problems]) == (State.REJECTED, ["spool-shared"])


def test_a_submission_is_its_peers_own(daemon: Service) -> None:
    """By the control socket the kernel says who asks, whoever they claim to be."""
    source = disk(daemon.root / "shared/peer.raw", "root", 0o644)
    (daemon.root / "peer.yaml").write_text(f"vmdk: {source}\nvm_name: peer\nsubmitter: root\n")
    done = daemon.ctl("submit", daemon.root / "peer.yaml", check=False)
    assert done.returncode == 2 and "submitter" in done.stderr
    (daemon.root / "peer.yaml").write_text(f"vmdk: {source}\nvm_name: peer\n")
    daemon.ctl("submit", daemon.root / "peer.yaml")
    job = daemon.job("peer")
    assert job is not None and (job.submitter, job.submitter_uid) == (USER, pwd.getpwnam(USER).pw_uid)
    daemon.finished("peer")


@pytest.mark.parametrize("place", ["control.sock", "state/jobs.sqlite3", "spool/done"])
def test_a_neighbour_reaches_nothing(daemon: Service, place: str) -> None:
    """Neither by name nor by address."""
    path = daemon.root / place
    assert path.exists()
    looking = (
        "import os, socket, sys\n"
        "try:\n"
        "    if sys.argv[1].endswith('.sock'): socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
        "    elif os.path.isdir(sys.argv[1]): os.listdir(sys.argv[1])\n"
        "    else: open(sys.argv[1])\n"
        "except PermissionError: print('no')\n"
    )
    argv = [
        "setpriv",
        "--reuid=nobody",
        "--regid=nogroup",
        "--clear-groups",
        "/usr/bin/python3",
        "-ISc",
        looking,
        str(path),
    ]
    assert subprocess.run(argv, capture_output=True, text=True).stdout == "no\n"


# ---------------------------------------------------------------- the judge itself


def test_a_folder_swapped_for_a_link_while_it_is_opened(tmp_path: Path) -> None:
    """The name is looked up and opened again and again; never is another file's right to be opened mistaken for it."""
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    for folder in (allowed, allowed / "real", secret):
        folder.mkdir()
        (folder / "disk.raw").write_bytes(folder.name.encode())
    over, way = threading.Event(), allowed / "way"

    def swap() -> None:
        while not over.is_set():
            for target in (allowed / "real", secret):
                draft = allowed / "draft"
                draft.symlink_to(target)
                draft.rename(way)

    swapper = threading.Thread(target=swap)
    swapper.start()
    outcomes = set()
    try:
        for _ in range(3000):
            try:
                file = open_file(way / "disk.raw", Mandate(folders=(allowed,)))
            except Unsafe as refusal:
                outcomes.add(refusal.code)
                continue
            except Failure:
                continue
            outcomes.add(os.pread(file.fd, 64, 0).decode())
            os.close(file.fd)
    finally:
        over.set()
        swapper.join()
    assert outcomes == {"real", "path-not-allowed"}


def test_a_closed_folder_exchanged_for_an_open_one_while_a_disk_is_opened() -> None:
    """In a folder of a team: its members may rename each other's folders, and choose which one is judged."""
    root = Path(tempfile.mkdtemp(prefix="h2k-test-", dir="/var/tmp"))
    root.chmod(0o777)
    closed, open_one = root / "closed", root / "open"
    for folder, owner, mode in ((closed, "games", 0o700), (open_one, VICTIM, 0o755)):
        folder.mkdir()
        (folder / "disk.raw").write_text(folder.name)
        (folder / "disk.raw").chmod(0o644)
        folder.chmod(mode)
        for path in (folder, folder / "disk.raw"):
            shutil.chown(path, owner)
    over, libc = threading.Event(), ctypes.CDLL(None)

    def exchange() -> None:
        while not over.is_set():
            libc.renameat2(-1, bytes(closed), -1, bytes(open_one), RENAME_EXCHANGE)

    exchanger = threading.Thread(target=exchange)
    exchanger.start()
    outcomes = set()
    try:
        for _ in range(5000):
            try:
                file = open_file(open_one / "disk.raw", Mandate(Person.of(NOBODY)))
            except Failure as failure:
                outcomes.add(failure.code)
                continue
            outcomes.add(os.pread(file.fd, 64, 0).decode())
            os.close(file.fd)
    finally:
        over.set()
        exchanger.join()
        shutil.rmtree(root)
    assert outcomes == {"open", "submitter-may-not-read"}


def test_a_name_that_belongs_to_somebody_else_by_now(service_folder: Path) -> None:
    """The user database was changed while the job waited. Who submitted it is known by their uid."""
    service_folder.chmod(0o755)
    secret = disk(service_folder / "secret.raw", "games", 0o600)
    order = Order(
        job_id="7",
        migration=Migration(vmdk=(secret,), vm_name="web01"),
        submitter="games",
        submitter_uid=NOBODY,
        conversion_dir=service_folder,
        output_dir=service_folder,
        helper=("none",),
    )
    with pytest.raises(Unsafe) as caught:
        open_file(secret, Mandate.of(order))
    assert caught.value.code == "submitter-may-not-read"


@pytest.mark.parametrize("uid", [987654, pwd.getpwnam(VICTIM).pw_uid])
def test_a_spool_file_is_its_owners_by_their_uid(tmp_path: Path, uid: int) -> None:
    """Somebody without a name is recorded by number, and somebody could be called like that."""
    prepare(tmp_path)
    (tmp_path / "incoming").chmod(0o777)
    path = tmp_path / "incoming/web01.yaml"
    path.write_text("vmdk: /a.vmdk\n")
    os.chown(path, uid, uid)
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    spool = Spool(tmp_path, store, Metrics())
    until("it is a job", lambda: spool.scan() and store.list())
    (job,) = store.list()
    store.close()
    assert job.submitter_uid == uid


RENAME_EXCHANGE = 2
FULL = ((OWNER, 6, -1), (GROUP, 0, -1), (MASK, 7, -1), (OTHER, 0, -1))
OPEN = ((OWNER, 6, -1), (GROUP, 4, -1), (MASK, 7, -1), (OTHER, 4, -1))
SHUT = ((OWNER, 6, -1), (GROUP, 4, -1), (MASK, 1, -1), (OTHER, 4, -1))
VOID = ((OWNER, 6, -1), (GROUP, 4, -1), (MASK, 0, -1), (OTHER, 4, -1))


@pytest.mark.parametrize(
    ("acl", "mode", "may"),
    [
        ((), 0o644, True),
        ((), 0o640, False),
        ((), 0o604, True),
        ((*FULL, (USERS, 4, NOBODY)), None, True),
        ((*OPEN, (USERS, 0, NOBODY)), None, False),
        ((*SHUT, (USERS, 4, NOBODY)), None, False),
        ((*FULL, (GROUPS, 4, NOGROUP)), None, True),
        ((*OPEN, (GROUPS, 0, NOGROUP)), None, False),
        ((*SHUT, (GROUPS, 4, NOGROUP)), None, False),
        ((*FULL, (USERS, 4, 0)), None, False),
        ((*VOID, (USERS, 0, NOBODY)), None, True),
    ],
    ids=str,
)
def test_rights_are_judged_as_the_kernel_does(
    acl: tuple[tuple[int, int, int], ...], mode: int | None, may: bool
) -> None:
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/var/tmp"))
    folder.chmod(0o755)
    path = folder / "file"
    path.write_text("x")
    if mode is not None:
        path.chmod(mode)
    if acl:
        set_acl(path, *acl)
    try:
        nobody = Person.of(NOBODY)
        argv = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "test", "-r", str(path)]
        kernel = subprocess.run(argv, check=False).returncode == 0
        with path.open() as file:
            assert (nobody.may(READ, path), nobody.may(READ, file.fileno()), kernel) == (may, may, may)
        assert nobody.may(SEARCH, folder) and Person.of(0).may(READ, path)
    finally:
        shutil.rmtree(folder)


def test_somebody_whom_nobody_knows_has_the_rights_of_others(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    for uid in (NOBODY_AT_ALL, 987654):
        stranger = Person.of(uid)
        path.chmod(0o640)
        assert not stranger.may(READ, path)
        path.chmod(0o604)
        assert stranger.may(READ, path)
    assert grp.getgrnam("nogroup").gr_gid in Person.of(NOBODY).groups
    assert Person.of(0).name == "root" and Person.of(987654).name == "987654"
